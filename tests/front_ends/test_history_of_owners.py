"""Actors, reasons and evidence are for those who owned the service at the time, through every front end."""

from itertools import count
from typing import Any

import psycopg
import pytest

from tests.client import registration, token
from tests.front_ends.client import FrontEnd, Request
from tests.front_ends.test_ownership import team

PRIVATE = {"actor", "reason"}
numbers = count()


class Story:
    """A service of the first team, which an operator takes over for the second team.

    The service has an instance and an override of each time.
    """

    def __init__(self, front: FrontEnd, database_url: str) -> None:
        self.name = f"history-{next(numbers)}"
        self.front = front
        self.database_url = database_url
        self.first, self.second = team("team-first"), team("team-second")
        self.admin = token("registry-admins", subject="admin")
        self.start = self.ask("GET", "/registry/watch", self.admin)["index"]

    def ask(self, method: str, path: str, bearer: str, body: Any = None, front: FrontEnd | None = None) -> Any:
        answer = (front or self.front).ask(Request(method, path, body, bearer))
        assert answer.status in {200, 201, 204}, str(answer)
        return answer.json if answer.body else None

    def register(self, bearer: str, **fields: Any) -> None:
        self.ask("POST", "/registry/register", bearer, registration(self.name, "a", **fields))

    def override(self, bearer: str, reason: str) -> None:
        body = {"status": "OUT_OF_SERVICE", "reason": reason}
        self.ask("PUT", f"/registry/instance/{self.name}/a/status", bearer, body)

    def set_owners(self, *owners: str) -> None:
        self.ask("PUT", f"/registry/services/{self.name}/owners", self.admin, {"owners": owners, "reason": "handover"})

    def leave(self) -> None:
        """Deregister the first team's instance, delete the service, and let the reservation of its name be over."""
        self.ask("POST", "/registry/deregister", self.first, {"service_name": self.name, "instance_id": "a"})
        self.ask("DELETE", f"/registry/services/{self.name}?reason=moved", self.admin)
        with psycopg.connect(self.database_url) as connection:
            connection.execute(
                "UPDATE service_registry_reservation SET until = statement_timestamp() WHERE name = %s", [self.name]
            )

    def attributed(self, changes: list[dict[str, Any]]) -> list[tuple[str, bool]]:
        """Return the kinds of changes, each with whether it has what only owners and operators may see."""
        for change in changes:
            private = change.keys() & {"actor", "reason", "evidence"}
            assert private >= PRIVATE or not private, change
        return [(change["kind"], "actor" in change) for change in changes]

    def history(self, bearer: str, front: FrontEnd, more: str = "") -> list[tuple[str, bool]]:
        found = self.ask("GET", f"/registry/changes?service={self.name}{more}", bearer, front=front)
        return self.attributed(found["changes"])

    def watch(self, bearer: str, front: FrontEnd) -> list[tuple[str, bool]]:
        """Return what polls deliver up to the end of the log, which a replica reaches a moment later."""
        end = self.ask("GET", f"/registry/changes?service={self.name}", self.admin)["changes"][-1]["index"]
        index, changes = self.start, list[dict[str, Any]]()
        while not changes or changes[-1]["index"] != end:
            path = f"/registry/watch?service={self.name}&index={index}&wait=10s"
            polled = self.ask("GET", path, bearer, front=front)
            index = polled["index"]
            changes += polled["changes"]
        return self.attributed(changes)


@pytest.fixture(params=[0, 1], ids=["asgi", "wsgi"])
def story(request: pytest.FixtureRequest, fronts: tuple[FrontEnd, FrontEnd], database_url: str) -> Story:
    return Story(fronts[request.param], database_url)


def seen(kinds: tuple[str, ...], *, since: int = 0, until: int = 99) -> list[tuple[str, bool]]:
    return [(kind, since <= place < until) for place, kind in enumerate(kinds)]


def test_team_that_claims_a_freed_name_sees_no_actors_of_the_team_before(
    story: Story, fronts: tuple[FrontEnd, FrontEnd]
) -> None:
    story.register(story.first)
    story.override(story.first, "a secret of the first team")
    story.leave()
    story.register(story.second)
    before = ("service_created", "registered", "status_changed", "deregistered", "service_deleted")
    kinds = (*before, "service_created", "registered")
    reader, operator = (token(role, subject=role) for role in ("registry-readers", "registry-operators"))
    for front in fronts:
        assert story.history(story.second, front) == seen(kinds, since=5), front.name
        assert story.history(operator, front) == seen(kinds), front.name
        assert story.watch(story.second, front) == seen(kinds, since=5), front.name
        assert story.watch(story.first, front) == seen(kinds, until=5), front.name
        assert story.watch(reader, front) == seen(kinds, until=0), front.name
        assert story.watch(operator, front) == seen(kinds), front.name


def test_search_for_an_actor_finds_only_changes_whose_actor_is_shown(
    story: Story, fronts: tuple[FrontEnd, FrontEnd]
) -> None:
    story.register(story.first)
    changes = story.ask("GET", f"/registry/changes?service={story.name}", story.first)["changes"]
    actor = changes[0]["actor"]
    story.leave()
    story.register(story.second)
    for front in fronts:
        assert story.history(story.second, front, f"&actor={actor}") == [], front.name
        assert len(story.history(story.admin, front, f"&actor={actor}")) == 3, front.name


def test_handover_hides_actors_before_it_from_the_new_owner_alone(
    story: Story, fronts: tuple[FrontEnd, FrontEnd]
) -> None:
    story.register(story.first)
    story.set_owners("team-first", "team-second")
    story.register(story.first, weight=1)
    story.set_owners("team-second")
    story.register(story.second, weight=2)
    kinds = ("service_created", "registered", "owners_changed", "updated", "owners_changed", "updated")
    for front in fronts:
        assert story.history(story.second, front) == seen(kinds, since=2), front.name
        assert story.watch(story.second, front) == seen(kinds, since=2), front.name
        assert story.watch(story.first, front) == seen(kinds, until=4), front.name


def test_instance_shows_who_registered_and_overrode_it_only_since_the_handover(
    story: Story, fronts: tuple[FrontEnd, FrontEnd]
) -> None:
    def shown(bearer: str, front: FrontEnd) -> tuple[str | None, str | None]:
        document = story.ask("GET", f"/registry/instance/{story.name}/a", bearer, front=front)
        assert ("reason" in document["override"]) == ("actor" in document["override"])
        return document.get("registered_by", "").partition("@")[0], document["override"].get("reason", "")

    story.register(story.first)
    story.override(story.first, "theirs")
    for front in fronts:
        assert shown(story.first, front) == ("team-first", "theirs"), front.name
    story.set_owners("team-second")
    for front in fronts:
        assert shown(story.second, front) == ("", ""), front.name
        assert shown(story.first, front) == ("", ""), front.name
        assert shown(story.admin, front) == ("team-first", "theirs"), front.name
    story.register(story.second, host="10.0.0.2")
    for front in fronts:
        assert shown(story.second, front) == ("team-second", ""), front.name
    story.override(story.second, "ours")
    for front in fronts:
        assert shown(story.second, front) == ("team-second", "ours"), front.name
