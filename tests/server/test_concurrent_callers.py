"""Many concurrent callers over HTTP, on two web processes."""

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.client import registration
from tests.server.registry import Registry

CLAIMS = 50
CALLS_OF_A_WRITER = 50


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("concurrent"), web_processes=2) as running:
        yield running


def run_concurrently(size: int, run: Callable[[int], Any]) -> list[Any]:
    """Run the function `size` times at once, with numbers from 0."""
    with ThreadPoolExecutor(size) as threads:
        return [future.result(120) for future in [threads.submit(run, number) for number in range(size)]]


def test_concurrent_registrations_by_200_threads_make_one_row_and_change_each(registry: Registry) -> None:
    bearer = registry.caller("registry-services", "team-crowd").headers["Authorization"].removeprefix("Bearer ")

    def register(number: int) -> list[tuple[int, str, int]]:
        caller = registry.caller_with_token(bearer, number % 2)
        answers = []
        for call in range(5):
            instance_id = f"i-{(number * 7 + call * 11) % 50}"
            body = registration("crowd", instance_id, host=f"10.0.0.{(number + call) % 2 + 1}")
            reply = caller.call("POST", "/registry/register", body)
            answers.append((reply.status, instance_id, reply.json.get("epoch", 0)))
        return answers

    answers = [answer for answers in run_concurrently(200, register) for answer in answers]
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


def test_concurrent_claims_of_a_name_over_http_have_one_winner(registry: Registry) -> None:
    barrier = threading.Barrier(2)

    def claim(number: int) -> list[int]:
        caller = registry.caller("registry-services", f"team-{number}", place=number)
        statuses = []
        for trial in range(CLAIMS):
            barrier.wait(30)
            body = registration(f"claimed-{trial}", f"i-{number}")
            statuses.append(caller.call("POST", "/registry/register", body).status)
        return statuses

    first, second = run_concurrently(2, claim)
    print(f"{CLAIMS} claims by two at once: {sum(status == 201 for status in first)} won by the first")
    assert all({*pair} == {201, 403} for pair in zip(first, second, strict=True))
    owners = dict(registry.sql("SELECT name, owners FROM service_registry_service WHERE name LIKE 'claimed-%'"))
    assert all(owners[f"claimed-{trial}"] == [f"team-{first[trial] == 403:d}"] for trial in range(CLAIMS))


def test_concurrent_overlapping_arrays_over_http_never_deadlock(registry: Registry) -> None:
    keys = [(service, f"i-{number}") for service in ("mixed-a", "mixed-b") for number in range(20)]
    calls: list[int] = []

    def write(seed: int) -> Counter[int]:
        chance = random.Random(seed)
        caller = registry.caller("registry-services", "team-mixed", place=seed % 2)
        statuses: Counter[int] = Counter()
        for _ in range(CALLS_OF_A_WRITER):
            chosen = chance.sample(keys, 15)
            operation, items = random_body(chance, chosen)
            reply = caller.call("POST", f"/registry/{operation}", items)
            calls.append(reply.status)
            statuses.update(result["status"] for result in reply.json.get("results", []))
        return statuses

    statuses = sum(run_concurrently(8, write), Counter[int]())
    print(f"calls of 8 writers: {dict(Counter(calls))}, items: {dict(statuses)}, {registry.deadlocks()} deadlocks")
    assert registry.deadlocks() == 0
    assert Counter(calls) == {200: 8 * CALLS_OF_A_WRITER}
    assert set(statuses) <= {200, 201, 204, 404}


def random_body(chance: random.Random, keys: list[tuple[str, str]]) -> tuple[str, list[dict[str, Any]]]:
    operation = chance.choices(("register", "heartbeat", "deregister"), (4, 4, 1))[0]
    if operation == "register":
        return operation, [registration(*key, port=chance.choice((80, 81))) for key in keys]
    items: list[dict[str, Any]] = [{"service_name": service, "instance_id": instance} for service, instance in keys]
    if operation == "deregister":
        return operation, items[:4]
    return operation, [item | chance.choice(({}, {"status": "UP"}, {"status": "DOWN"})) for item in items]
