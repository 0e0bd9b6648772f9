"""The list from memory is the list that Django gives, byte for byte."""

import asyncio
import itertools
import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

import pytest
from django.http import QueryDict

from service_registry.asgi.flow_control import Answers
from service_registry.asgi.reads.listing import Listing
from service_registry.asgi.reads.response_cache import Texts
from service_registry.expiry.sweep import sweep
from service_registry.http.validation import validate_query
from service_registry.models import Override
from service_registry.replica.connection import FeedConnection, connect
from service_registry.replica.hub import Hub
from service_registry.replica.load import load_replica, read_changes
from service_registry.replica.store import Replica
from service_registry.schemas import ListQuery
from tests import ageing
from tests.client import Api, registration
from tests.fleets import register_fleet, set_heartbeat_age

pytestmark = pytest.mark.django_db(transaction=True)

# From a query to the index at which the answer was read, and its text.
Give = Callable[[str], tuple[str, bytes]]


@pytest.fixture
def feed() -> Iterator[FeedConnection]:
    with connect() as connection:
        yield connection


@pytest.fixture
def team() -> Api:
    return Api("registry-services", "registry-operators", "registry-admins", "team", subject="team")


@pytest.fixture
def by_django(team: Api) -> Give:
    def give(query: str) -> tuple[str, bytes]:
        answer = team.get(f"/registry/services?{query}")
        assert answer.status == 200, (query, answer.body)
        return answer.headers["x-registry-index"], answer.body

    return give


def from_memory(replica: Replica) -> Give:
    """What a process gives whose database was there last ten seconds ago."""
    hub = Hub()
    hub.replica, hub.read_at = replica, time.monotonic() - 10
    pages = Listing(hub, Texts(), Answers())

    def give(query: str) -> tuple[str, bytes]:
        page = asyncio.run(pages.page(validate_query(ListQuery, QueryDict(query))))
        assert page is not None
        text, headers = page
        assert int(headers["X-Registry-Stale"]) > 10
        return headers["X-Registry-Index"], text

    return give


def walked(query: str, *places: Give) -> list[tuple[str, bytes]]:
    """All pages, asked of the places in turn."""
    pages: list[tuple[str, bytes]] = []
    asked = query
    for place in itertools.cycle(places):
        pages.append(place(asked))
        following = json.loads(pages[-1][1])["next"]
        if following is None:
            break
        asked = f"{query}&{urlencode({'after': following})}"
        assert len(pages) < 100, query
    return pages


def fill(team: Api) -> None:
    """Every way in which services and instances can stand."""
    team.register("api", "b", tags=["v2", "canary"], metadata={"version": "2", "q": 'a"\\é'}, host="2001:db8::1")
    team.register("api", "a", zone="eu", tags=["v2"], status="DOWN", weight=0)
    team.register("api", "B", zone="us", metadata={"version": "2", "tier": "front"})
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
    hold_and_expire(team)


def override(team: Api) -> None:
    """One that stands, one that has ended, and one of an instance that is not there."""
    statement = {"status": "OUT_OF_SERVICE", "reason": "disk"}
    until = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    team.register("overridden", "ended")
    team.register("overridden", "stands")
    for path in ("overridden/ended", "overridden/stands", "web/absent"):
        answer = team.call("PUT", f"/registry/instance/{path}/status", statement | {"until": until})
        assert answer.status == 200, answer.body
    Override.objects.filter(instance_id="ended").update(until=datetime.now(UTC) - timedelta(seconds=1))
    assert sweep().overrides_ended == 1


def hold_and_expire(team: Api) -> None:
    """Four of six are held; of two services all or some have expired."""
    team.register("lost", "all")
    team.register("api", "expired")
    held = register_fleet(team, {"held": 6})[:4]
    for instance_id in ("all", "expired"):
        ageing.age_leases(60, instance_id=instance_id)
    set_heartbeat_age(33.5, held)
    report = sweep()
    assert (report.expired, report.protected) == (2, 4)


def states(give: Give) -> set[str]:
    services = json.loads(give("state=all&status=all")[1])["services"]
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
]


@pytest.mark.parametrize("view", ["full", "summary"])
def test_the_list_is_the_same_from_memory_as_by_django(
    team: Api, feed: FeedConnection, by_django: Give, view: str
) -> None:
    """From one that was loaded, and from one that the log has told all of it; also where a walk changes its place."""
    fed, _ = load_replica(feed)
    fill(team)
    assert states(by_django) == {"live", "protected", "expired"}
    changes = read_changes(feed, fed.index, fed.pk, 500, 0)
    assert changes
    for change in changes:
        fed.apply(change)
    loaded, fed_too = from_memory(load_replica(feed)[0]), from_memory(fed)
    for query, limit in itertools.product(QUERIES, (3, 500)):
        asked = f"{query}&view={view}&limit={limit}"
        pages = walked(asked, by_django)
        for places in ([loaded], [fed_too], [loaded, by_django], [by_django, fed_too]):
            assert walked(asked, *places) == pages, asked


@pytest.mark.parametrize("sizes", [(1500, 600, 1), (2000, 1), (1999, 1, 1), (1, 2500)])
def test_a_page_ends_with_the_instances_that_fill_it(
    team: Api, feed: FeedConnection, by_django: Give, sizes: tuple[int, ...]
) -> None:
    for name, size in zip("abc", sizes, strict=False):
        items = [registration(name, f"i-{number}") for number in range(size)]
        for start in range(0, size, 1000):
            assert team.post("/registry/register", items[start : start + 1000]).status == 200
    memory = from_memory(load_replica(feed)[0])
    for query in ("", "view=summary", "zone=nowhere"):
        assert walked(query, memory) == walked(query, by_django)
    assert len(walked("", memory)) == (1 if sizes == (1, 2500) else 2)


def test_a_walk_keeps_the_index_it_began_with(team: Api, feed: FeedConnection, by_django: Give) -> None:
    for name in "abc":
        team.register(name)
    began = from_memory(load_replica(feed)[0])
    team.register("d")
    ended = from_memory(load_replica(feed)[0])
    pages = walked("limit=1", began, ended, by_django, ended)
    assert [json.loads(text)["services"][0]["name"] for _index, text in pages] == ["a", "b", "c", "d"]
    assert {json.loads(text)["index"] for _index, text in pages} == {pages[0][0]}
    assert {index for index, _text in pages[1:]}.isdisjoint({pages[0][0]})
