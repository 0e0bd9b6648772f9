"""Mistakes that are made on purpose: each must be found by the cases that are there for it."""

import json
from collections.abc import Callable, Iterator
from urllib.parse import quote

import pytest

from tests.client import token
from tests.front_ends.calls import CALLS, OTHER_TEAM, ROLES, TEAM
from tests.front_ends.cases import (
    bad_fields,
    bad_items,
    bad_json,
    bad_queries,
    permission_matrix,
    superfluous_queries,
)
from tests.front_ends.client import FrontEnd, Request
from tests.front_ends.running import Case, Run
from tests.front_ends.servers import serving

# Every seventh case is enough to see that the tables find a mistake.
SOME = 7
PARTS: dict[str, Callable[[str], list[Case]]] = {
    "permissions": lambda _bearer: [*permission_matrix({"no-role": frozenset()}, TEAM)],
    "ownership": lambda _bearer: [*permission_matrix({"registry-services": ROLES["registry-services"]}, OTHER_TEAM)],
    "fields": lambda bearer: bad_fields(bearer)[::SOME],
    "items": bad_items,
    "queries": lambda bearer: [*bad_queries(bearer), *superfluous_queries(bearer)][::SOME],
    "JSON": lambda bearer: bad_json(bearer)[::SOME],
}
# A second rule stands behind the view's check: who may not see all changes has to name a service.
CHECKED_TWICE = {"changes"}


@pytest.fixture(scope="module")
def mistaken(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FrontEnd, FrontEnd]]:
    place = tmp_path_factory.mktemp("mistakes")
    with serving(database_url, place, "-mistaken", module="tests.front_ends.mistakes") as started:
        yield started


def make(front: FrontEnd, name: str) -> dict[str, str]:
    """Make a mistake, or with an empty name none besides; return all, each with the part that must find it."""
    mistakes: dict[str, str] = json.loads(front.ask(Request("POST", f"/mistakes/{quote(name)}")).body)
    return mistakes


def failing(front: FrontEnd, part: str) -> set[str]:
    """The cases of a part that fail."""
    run = Run([front])
    run.run(PARTS[part](token("registry-admins", TEAM, subject="admin")))
    return {failure.case for failure in run.failures}


@pytest.mark.parametrize("place", [0, 1], ids=["asgi", "wsgi"])
def test_a_mistake_is_found(mistaken: tuple[FrontEnd, FrontEnd], place: int) -> None:
    front = mistaken[place]
    found = {}
    for name, part in make(front, "").items():
        make(front, name)
        found[name] = failing(front, part)
        make(front, "none")
    overlooked = [name for name, cases in found.items() if not cases and not is_of_the_other_way(front, name)]
    assert overlooked == []
    by_handlers = {case for name, cases in found.items() if "does not check" in name for case in cases}
    found_calls = {call.name for call in CALLS if any(case.startswith(f"{call.name} by") for case in by_handlers)}
    assert {call.name for call in CALLS} - found_calls == CHECKED_TWICE, "a handler's mistake for each other call"


def is_of_the_other_way(front: FrontEnd, name: str) -> bool:
    """Whether a view has the mistake whose calls this front end answers by an asynchronous handler."""
    return front.name == "asgi" and name.startswith(("RegistrationViewSet", "WatchViewSet"))


@pytest.mark.parametrize("place", [0, 1], ids=["asgi", "wsgi"])
def test_nothing_is_found_without_a_mistake(mistaken: tuple[FrontEnd, FrontEnd], place: int) -> None:
    front = mistaken[place]
    make(front, "none")
    assert [case for part in PARTS for case in failing(front, part)] == []
