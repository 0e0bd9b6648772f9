"""The list from memory equals the list from the database byte for byte, and bounds its queue."""

import asyncio
import itertools
import json
import math
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

import pytest
from django.http import QueryDict

from service_registry.asgi.auth import Authenticator
from service_registry.asgi.flow_control import ResponsesInFlight
from service_registry.asgi.limits import SubscriberPlaces
from service_registry.asgi.reads.blocking import BlockingReads
from service_registry.asgi.reads.listing import Listing
from service_registry.asgi.reads.response_cache import ResponseCache
from service_registry.asgi.threads import ReadThreads
from service_registry.expiry.sweep import sweep
from service_registry.http import cursors
from service_registry.http.responses import Response
from service_registry.http.validation import validate_query
from service_registry.models import Override
from service_registry.replica.connection import FeedConnection, connect
from service_registry.replica.hub import Hub
from service_registry.replica.load import load_replica, read_changes
from service_registry.replica.store import Replica, ServiceEntry
from service_registry.schemas import ListQuery
from tests import ageing
from tests.client import Api, registration
from tests.fleets import register_fleet, set_heartbeat_age

pytestmark = pytest.mark.django_db(transaction=True)

# Reads the list for a query string, and returns the index of the response and its body.
ReadList = Callable[[str], tuple[str, bytes]]


@pytest.fixture
def feed() -> Iterator[FeedConnection]:
    with connect() as connection:
        yield connection


@pytest.fixture
def team() -> Api:
    return Api("registry-services", "registry-operators", "registry-admins", "team", subject="team")


@pytest.fixture
def from_database(team: Api) -> ReadList:
    def read(query: str) -> tuple[str, bytes]:
        answer = team.get(f"/registry/services?{query}")
        assert answer.status == 200, (query, answer.body)
        return answer.headers["x-registry-index"], answer.body

    return read


def listing_of(replica: Replica, stale: bool = False) -> Listing:
    """Return the handler of a process whose replica is fresh, or that last read the log ten seconds ago."""
    hub, threads = Hub(), ReadThreads()
    hub.replica, hub.read_at = replica, time.monotonic() - 10 if stale else math.inf
    blocking = BlockingReads(hub, Authenticator(threads), threads, SubscriberPlaces())
    return Listing(Authenticator(threads), ResponsesInFlight(), blocking, ResponseCache())


def from_memory(replica: Replica, stale: bool = False) -> ReadList:
    listing = listing_of(replica, stale)

    def read(query: str) -> tuple[str, bytes]:
        parsed = validate_query(ListQuery, QueryDict(query))
        response = asyncio.run(listing.page(replica, parsed, cursors.decode(parsed.after)))
        assert (int(response.headers.get("X-Registry-Stale", "0")) > 10) == stale
        return response.headers["X-Registry-Index"], response.body

    return read


def read_pages(query: str, *sources: ReadList) -> list[tuple[str, bytes]]:
    """Read all pages, from the sources in turn."""
    pages: list[tuple[str, bytes]] = []
    page_query = query
    for read in itertools.cycle(sources):
        pages.append(read(page_query))
        following = json.loads(pages[-1][1])["next"]
        if following is None:
            break
        page_query = f"{query}&{urlencode({'after': following})}"
        assert len(pages) < 100, query
    return pages


def fill(team: Api) -> None:
    """Create services and instances in every state."""
    team.register("api", "b", tags=["v2", "canary"], metadata={"version": "2", "q": 'a"\\é'}, host="2001:db8::1")
    team.register("api", "a", zone="eu", tags=["v2"], status="DOWN", weight=0)
    team.register("api", "B", zone="us", metadata={"version": "2", "tier": "front"})
    answer = team.register("api", "escaped", tags=['a"b', "a\\b"], metadata={"q": "\u2028</"})
    assert answer.status == 201, answer.body
    for name in ("a.b", "a_b", "a-b", "ab", "a"):
        team.register(name, zone="eu")
    for namespace in ("test", "default-2", "a"):
        team.register("web", namespace=namespace, metadata={"version": "2"})
    team.register("web", "moved")
    team.register("web", "moved", host="10.9.9.9")
    team.register("empty", "gone")
    team.deregister("empty", "gone")
    team.register("deleted", "gone")
    team.deregister("deleted", "gone")
    assert team.call("DELETE", "/registry/services/deleted").status == 204
    team.register("handed-over")
    assert team.call("PUT", "/registry/services/handed-over/owners", {"owners": ["team-b", "team-ä"]}).status == 200
    override(team)
    protect_and_expire(team)


def override(team: Api) -> None:
    """Set an override that applies, one that has ended, and one of an instance that does not exist."""
    values = {"status": "OUT_OF_SERVICE", "reason": "disk"}
    until = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    team.register("overridden", "ended")
    team.register("overridden", "applies")
    for path in ("overridden/ended", "overridden/applies", "web/absent"):
        answer = team.call("PUT", f"/registry/instance/{path}/status", values | {"until": until})
        assert answer.status == 200, answer.body
    Override.objects.filter(instance_id="ended").update(until=datetime.now(UTC) - timedelta(seconds=1))
    assert sweep().overrides_ended == 1


def protect_and_expire(team: Api) -> None:
    """Protect four instances of six, and expire all or some instances of two other services."""
    team.register("lost", "all")
    team.register("api", "expired")
    protected = register_fleet(team, {"protected": 6})[:4]
    for instance_id in ("all", "expired"):
        ageing.age_leases(60, instance_id=instance_id)
    set_heartbeat_age(33.5, protected)
    report = sweep()
    assert (report.expired, report.protected) == (2, 4)


def states(read: ReadList) -> set[str]:
    services = json.loads(read("state=all&status=all")[1])["services"]
    return {instance["state"] for service in services for instance in service["instances"]}


QUERIES = [
    "",
    *("namespace=default", "namespace=default-2", "namespace=nowhere", "namespace=test&name=w*"),
    *("name=web", "name=a_b", "name=a_*", "name=a*", "name=*", "name=nowhere", "name=a."),
    *("owner=team", "owner=team-b", "owner=team-%C3%A4", "owner=nobody", "owner=team&zone=eu"),
    *("status=DOWN", "status=all", "status=OUT_OF_SERVICE&status=DOWN", "status=STARTING"),
    *("state=live", "state=protected", "state=expired", "state=expired&status=all", "state=all&status=all"),
    *("protected=true", "protected=false", "protected=true&state=all", "protected=true&state=live"),
    *("zone=eu", "zone=nowhere", "tag=v2", "tag=v2&tag=canary", "tag=v3"),
    *("metadata.version=2", "metadata.version=2&metadata.tier=front", "metadata.q=a%22%5C%C3%A9", "metadata.q=a"),
    *("zone=us", "tag=a%22b", "tag=a%5Cb", "tag=eu", "metadata.version=v2", "metadata.q=%E2%80%A8%3C%2F"),
]


@pytest.mark.parametrize("view", ["full", "summary"])
def test_list_from_memory_equals_list_from_database(
    team: Api, feed: FeedConnection, from_database: ReadList, view: str
) -> None:
    """Compare a replica from the tables, one fed by the log, and a walk that changes between sources."""
    fed, _ = load_replica(feed)
    fill(team)
    assert states(from_database) == {"live", "protected", "expired"}
    changes = read_changes(feed, fed.index, fed.pk, 500, 0)
    assert changes
    for change in changes:
        fed.apply(change)
    loaded, from_log = from_memory(load_replica(feed)[0]), from_memory(fed, stale=True)
    for query, limit in itertools.product(QUERIES, (3, 500)):
        page_query = f"{query}&view={view}&limit={limit}"
        pages = read_pages(page_query, from_database)
        for sources in ([loaded], [from_log], [loaded, from_database], [from_database, from_log]):
            assert read_pages(page_query, *sources) == pages, page_query


@pytest.mark.parametrize("sizes", [(1500, 600, 1), (2000, 1), (1999, 1, 1), (1, 2500)])
def test_list_page_ends_with_the_service_that_fills_it(
    team: Api, feed: FeedConnection, from_database: ReadList, sizes: tuple[int, ...]
) -> None:
    for name, size in zip("abc", sizes, strict=False):
        items = [registration(name, f"i-{number}") for number in range(size)]
        for start in range(0, size, 1000):
            assert team.post("/registry/register", items[start : start + 1000]).status == 200
    memory = from_memory(load_replica(feed)[0])
    for query in ("", "view=summary", "zone=nowhere"):
        assert read_pages(query, memory) == read_pages(query, from_database)
    assert len(read_pages("", memory)) == (1 if sizes == (1, 2500) else 2)


def test_list_keeps_the_index_of_its_first_page(team: Api, feed: FeedConnection, from_database: ReadList) -> None:
    for name in "abc":
        team.register(name)
    began = from_memory(load_replica(feed)[0])
    team.register("d")
    ended = from_memory(load_replica(feed)[0])
    pages = read_pages("limit=1", began, ended, from_database, ended)
    assert [json.loads(text)["services"][0]["name"] for _index, text in pages] == ["a", "b", "c", "d"]
    assert {json.loads(text)["index"] for _index, text in pages} == {pages[0][0]}
    assert {index for index, _text in pages[1:]}.isdisjoint({pages[0][0]})


def test_equal_list_requests_share_one_body() -> None:
    replica = Replica("0123abcd-7", 7, {("default", "web"): ServiceEntry(("team",))})

    async def read_many() -> list[Response]:
        listing = listing_of(replica)
        return await asyncio.gather(*(listing.page(replica, ListQuery(), None) for _ in range(50)))

    assert len({id(response.body) for response in asyncio.run(read_many())}) == 1
