"""The list of a large fleet: time and memory of a page, and walks beside changes."""

import random
import statistics
import threading
import time
from collections import Counter
from typing import Any

import psycopg
import pytest

from service_registry.choices import Status
from service_registry.queries.catalogue import PAGE
from service_registry.queries.filters import resolve_filters
from service_registry.schemas import ListQuery
from tests.client import registration
from tests.scale.conftest import INSTANCES_PER_SERVICE, SERVICES, name_of
from tests.server.memory import read_resident_bytes
from tests.server.registry import Caller, Registry

pytestmark = pytest.mark.scale

WALKS = 6


def read_pages(caller: Caller, query: str = "") -> tuple[list[Any], list[float]]:
    """Return all services, and the seconds that each page took."""
    services, seconds, after = [], [], ""
    while after is not None:
        begun = time.perf_counter()
        page = caller.call("GET", f"/registry/services?limit=100{query}{after and f'&after={after}'}").json
        seconds.append(time.perf_counter() - begun)
        services += page["services"]
        after = page["next"]
    return services, seconds


def measure_bare_queries(registry: Registry, places: list[str]) -> list[float]:
    """Return the seconds of the same pages as bare queries."""
    parameters = resolve_filters(ListQuery(), Status.values).parameters | {
        **dict.fromkeys(("namespace", "name", "owner")),
        "narrowed": False,
        "full": True,
        "limit": 100,
        "instances": 2000,
    }
    seconds = []
    with psycopg.connect(registry.postgres.url, cursor_factory=psycopg.ClientCursor) as connection:
        for place in places:
            begun = time.perf_counter()
            after = {"after_namespace": "default" if place else "", "after_name": place}
            connection.execute(PAGE, parameters | after).fetchall()
            seconds.append(time.perf_counter() - begun)
    return seconds


def percentile_99(seconds: list[float]) -> float:
    return statistics.quantiles(seconds, n=100)[98]


def test_page_of_a_large_fleet_costs_a_small_multiple_of_its_query(fleet: Registry) -> None:
    reader = fleet.caller("registry-readers")
    services, _seconds = read_pages(reader)
    assert len(services) == SERVICES
    before = read_resident_bytes(fleet.web[0].pid)
    seconds = [second for _ in range(WALKS) for second in read_pages(reader)[1]]
    grown = read_resident_bytes(fleet.web[0].pid) - before
    pages = len(seconds) // WALKS
    places = ["", *(name_of(page * 20 - 1) for page in range(1, pages))] * WALKS
    bare = measure_bare_queries(fleet, places)
    ratio = percentile_99(seconds) / percentile_99(bare)
    print(
        f"{len(seconds)} pages of up to 2,000 instances: p99 {percentile_99(seconds) * 1000:.0f} ms, the bare query "
        f"{percentile_99(bare) * 1000:.0f} ms, ratio {ratio:.1f}; the web process grew by {grown / 2**20:.0f} MiB"
    )
    assert ratio < 5
    assert grown < 100 * 2**20


def test_walk_beside_changes_returns_every_unchanged_instance_once(fleet: Registry) -> None:
    stop = threading.Event()
    churned = 0

    def churn() -> None:
        nonlocal churned
        team = fleet.caller("registry-services", "team-fleet")
        chance = random.Random(1)
        while not stop.is_set():
            name, instance_id = name_of(chance.randrange(SERVICES)), f"new-{chance.randrange(50)}"
            team.call("POST", "/registry/register", registration(name, instance_id, ttl_seconds=3600))
            team.call("POST", "/registry/register", registration(f"{name}-x", "x", ttl_seconds=3600))
            team.call("POST", "/registry/deregister", {"service_name": name, "instance_id": instance_id})
            churned += 3

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        services, _seconds = read_pages(fleet.caller("registry-readers"))
    finally:
        stop.set()
        thread.join()
    met = Counter(
        (service["name"], instance["instance_id"])
        for service in services
        for instance in service["instances"]
        if instance["instance_id"].startswith("i-")
    )
    print(f"{sum(met.values())} unchanged instances in a walk during {churned} changes")
    assert churned > 0
    assert len(met) == SERVICES * INSTANCES_PER_SERVICE
    assert set(met.values()) == {1}
