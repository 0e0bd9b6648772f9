"""The list from memory while the database does not respond, and afterwards."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.client import Answer, registration, token
from tests.server.registry import Caller, Registry, comparable
from tests.waiting import wait_for

PATH = "/registry/services"
STALE = "x-registry-stale"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("lists")) as running:
        yield running


def register_five_services(team: Caller, weight: int) -> None:
    """Register one instance of each of five services."""
    items = [registration(f"web-{number}", zone="eu", ttl_seconds=3600, weight=weight) for number in range(5)]
    wait_for(lambda: team.call("POST", "/registry/register", items).status == 200)


def is_from_the_database(reply: Answer) -> bool:
    return reply.status == 200 and STALE not in reply.headers


def read_pages(caller: Caller, first: Answer) -> list[Answer]:
    """Follow the cursors from the first page on."""
    pages = [first]
    while after := pages[-1].json["next"]:
        pages.append(caller.call("GET", f"{PATH}?limit=2&after={quote(after)}"))
        assert pages[-1].status == 200, pages[-1].body
    return pages


def without_age(reply: Answer) -> tuple[int, dict[str, str], bytes]:
    """Return a response without its request id and the age of the data."""
    status, headers, body = comparable(reply)
    return status, {name: headers[name] for name in headers.keys() - {"x-request-id", STALE}}, body


@pytest.mark.parametrize("outage", ["killed", "frozen"])
def test_list_during_an_outage_is_answered_from_memory(
    registry: Registry, team: Caller, reader: Caller, outage: str
) -> None:
    register_five_services(team, weight=1)
    queries = ["", "?view=summary", "?zone=eu&name=web-*", "?zone=us", "?owner=team&status=UP&state=all", "?limit=2"]
    before = {query: reader.call("GET", PATH + query) for query in queries}
    assert not any(STALE in reply.headers for reply in before.values())
    pages_before = read_pages(reader, before["?limit=2"])
    index = before[""].json["index"]
    # Accepted for 30 s after its end, this token is good for six more seconds.
    expiring = registry.caller_with_token(token("registry-readers", ttl_seconds=-24))
    with (
        registry.blocked_request(reader, f"{PATH}?index={index}&wait=10s") as receive,
        registry.blocked_request(expiring, f"{PATH}?index={index}&wait=10s") as receive_expired,
        registry.stopped_postgres() if outage == "killed" else registry.frozen_postgres(),
    ):
        wait_for(lambda: STALE in team.call("GET", PATH).headers)
        for query in queries:
            reply = team.call("GET", PATH + query)
            assert (without_age(reply), STALE in reply.headers) == (without_age(before[query]), True)
        assert [without_age(page) for page in read_pages(team, before["?limit=2"])] == [
            without_age(page) for page in pages_before
        ]
        assert [page.body for page in read_pages(team, team.call("GET", f"{PATH}?limit=2"))] == [
            page.body for page in pages_before
        ]
        waited = receive()
        assert (without_age(waited), STALE in waited.headers) == (without_age(before[""]), True)
        assert receive_expired().status == 401
        blocked = team.call("GET", f"{PATH}?index={index}&wait=200ms")
        assert (without_age(blocked), STALE in blocked.headers) == (without_age(before[""]), True)
        assert team.call("GET", "/registry/instance/web-0/web-1").status == 503
    wait_for(lambda: is_from_the_database(team.call("GET", PATH)))
    register_five_services(team, weight=7)
    after = reader.call("GET", PATH)
    assert {item["weight"] for service in after.json["services"] for item in service["instances"]} == {7}
    assert STALE not in after.headers


class RegistryWithFeedRole(Registry):
    """Its feeds log in with a separate role, which the database can lock out."""

    def start_web(self, port: int) -> subprocess.Popen[bytes]:
        self.execute("DO $$ BEGIN CREATE ROLE feed LOGIN SUPERUSER; EXCEPTION WHEN duplicate_object THEN END $$")
        self.execute(f"ALTER ROLE feed PASSWORD '{self.postgres.password()}'")
        self.environment["DATABASE_DIRECT_URL"] = self.postgres.url.replace("//registry:", "//feed:")
        return super().start_web(port)


def test_list_while_only_the_feed_is_cut_off_is_marked_stale(tmp_path: Path) -> None:
    """Writes reach the database, and both reads from memory say that they may lack them."""
    with RegistryWithFeedRole(tmp_path) as registry:
        team, reader = registry.caller("registry-services", "team"), registry.caller("registry-readers")
        register_five_services(team, weight=1)
        wait_for(lambda: reader.call("GET", f"{PATH}/web-1").json["instances"])
        registry.execute("ALTER ROLE feed NOLOGIN")
        registry.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'feed'")
        wait_for(lambda: STALE in reader.call("GET", f"{PATH}/web-1").headers)
        assert team.call("POST", "/registry/register", registration("late")).status == 201
        assert STALE in reader.call("GET", PATH).headers
        registry.execute("ALTER ROLE feed LOGIN")
        wait_for(lambda: reader.call("GET", f"{PATH}?name=late").json["services"])
        assert STALE not in reader.call("GET", PATH).headers
