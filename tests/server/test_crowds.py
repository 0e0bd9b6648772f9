"""Many callers at once over HTTP, on two web processes."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.client import registration
from tests.server.registry import Registry

# 1,000 calls take 11 s. Deadlocks, each found after a second and tried again, would make that minutes.
WRITERS_SECONDS = 45


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("crowds"), web_processes=2) as running:
        yield running


def crowd(size: int, run: Callable[[int], Any]) -> list[Any]:
    with ThreadPoolExecutor(size) as threads:
        return [future.result(120) for future in [threads.submit(run, place) for place in range(size)]]


def test_200_threads_that_register_the_same_50_instances(registry: Registry) -> None:
    bearer = registry.caller("registry-services", "team-crowd").headers["Authorization"].removeprefix("Bearer ")

    def register(place: int) -> list[tuple[int, str, int]]:
        caller = registry.caller_with_token(bearer, place % 2)
        answers = []
        for call in range(5):
            instance_id = f"i-{(place * 7 + call * 11) % 50}"
            body = registration("crowd", instance_id, host=f"10.0.0.{(place + call) % 2 + 1}")
            reply = caller.call("POST", "/registry/register", body)
            answers.append((reply.status, instance_id, reply.json.get("epoch", 0)))
        return answers

    answers = [answer for answers in crowd(200, register) for answer in answers]
    statuses = Counter(status for status, _id, _epoch in answers)
    print(f"{len(answers)} registrations by 200 threads: {dict(statuses)}")
    assert set(statuses) <= {200, 201}
    assert registry.deadlocks() == 0
    rows = registry.sql(
        "SELECT i.instance_id, l.epoch FROM service_registry_instance i "
        "JOIN service_registry_lease l ON l.instance_id = i.id "
        "JOIN service_registry_service s ON s.id = i.service_id WHERE s.name = 'crowd'"
    )
    final: dict[str, int] = dict(rows)
    assert (len(rows), len(final)) == (50, 50)
    for instance_id, epoch in final.items():
        assert epoch == max(epoch for _status, answered, epoch in answers if answered == instance_id)
    logged = Counter(
        epoch
        for (epoch,) in registry.sql(
            "SELECT (instance->>'epoch')::bigint FROM service_registry_change "
            "WHERE service_name = 'crowd' AND (kind = 'registered' OR kind = 'updated' AND 'epoch' = ANY (changed))"
        )
    )
    assert set(logged.values()) == {1}
    assert {epoch for _status, _id, epoch in answers} == set(logged)


def test_two_that_claim_the_same_name_at_once_200_times(registry: Registry) -> None:
    barrier = threading.Barrier(2)

    def claim(place: int) -> list[int]:
        caller = registry.caller("registry-services", f"team-{place}", place=place)
        statuses = []
        for trial in range(200):
            barrier.wait(30)
            body = registration(f"claimed-{trial}", f"i-{place}")
            statuses.append(caller.call("POST", "/registry/register", body).status)
        return statuses

    first, second = crowd(2, claim)
    print(f"200 claims by two at once: {sum(status == 201 for status in first)} won by the first")
    assert all({*pair} == {201, 403} for pair in zip(first, second, strict=True))
    owners = dict(registry.sql("SELECT name, owners FROM service_registry_service WHERE name LIKE 'claimed-%'"))
    assert all(owners[f"claimed-{trial}"] == [f"team-{first[trial] == 403:d}"] for trial in range(200))


def test_8_writers_of_overlapping_arrays_in_any_order(registry: Registry) -> None:
    keys = [(service, f"i-{number}") for service in ("mixed-a", "mixed-b") for number in range(20)]
    deadline = time.monotonic() + WRITERS_SECONDS
    calls: list[int] = []

    def write(seed: int) -> Counter[int]:
        chance = random.Random(seed)
        caller = registry.caller("registry-services", "team-mixed", place=seed % 2)
        statuses: Counter[int] = Counter()
        for _ in range(125):
            if time.monotonic() > deadline:
                break
            chosen = chance.sample(keys, 15)
            verb, items = body_of(chance, chosen)
            reply = caller.call("POST", f"/registry/{verb}", items)
            calls.append(reply.status)
            statuses.update(result["status"] for result in reply.json.get("results", []))
        return statuses

    statuses = sum(crowd(8, write), Counter[int]())
    print(f"calls of 8 writers: {dict(Counter(calls))}, items: {dict(statuses)}, {registry.deadlocks()} deadlocks")
    assert registry.deadlocks() == 0
    assert Counter(calls) == {200: 1000}
    assert set(statuses) <= {200, 201, 204, 404}


def body_of(chance: random.Random, keys: list[tuple[str, str]]) -> tuple[str, list[dict[str, Any]]]:
    verb = chance.choices(("register", "heartbeat", "deregister"), (4, 4, 1))[0]
    if verb == "register":
        return verb, [registration(*key, port=chance.choice((80, 81))) for key in keys]
    items: list[dict[str, Any]] = [{"service_name": service, "instance_id": instance} for service, instance in keys]
    if verb == "deregister":
        return verb, items[:4]
    return verb, [item | chance.choice(({}, {"status": "UP"}, {"status": "DOWN"})) for item in items]
