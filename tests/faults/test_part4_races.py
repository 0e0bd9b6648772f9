"""Races: a heartbeat and a sweep, three sweeps, a commit and a reader of the change log."""

import asyncio
import random
import subprocess
import sys
import threading
import time
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.client import registration
from tests.faults.checker import Checker
from tests.faults.fleet import Fleet
from tests.faults.http_client import Connection
from tests.faults.timing import choose_seconds, count_trials
from tests.faults.trial import UNPROTECTED, variables
from tests.server.registry import ROOT, Registry
from tests.waiting import wait_for

pytestmark = [pytest.mark.faults, pytest.mark.timeout(540)]

TTL_SECONDS = 5
LEASES = 200
LATENCY_SECONDS = 0.003
EXPIRED = "SELECT instance_id, extract(epoch FROM at)::float8 FROM service_registry_change WHERE kind = 'expired'"
LISTED_SECONDS = """
SELECT count(*), min(extract(epoch FROM at - (evidence->>'heartbeat_at')::timestamptz))::float8
FROM service_registry_change WHERE kind = 'expired'
"""


@contextmanager
def start_unprotected(directory: Path, **more: str) -> Iterator[Registry]:
    with Registry(directory, web_processes=2, variables=variables(**UNPROTECTED, **more)) as running:
        yield running


@pytest.mark.short
def test_no_lease_expires_before_its_ttl(tmp_path: Path) -> None:
    """With a sweep every 100 ms. The instances send no heartbeat."""
    size = count_trials(10_000, 2_000)
    with start_unprotected(tmp_path) as registry:
        registry.start("-m", "tests.faults.sweeper", "0.1")
        team = registry.caller("registry-services", "team")
        for start in range(0, size, 500):
            items = [registration("web", f"i-{start + number}", ttl_seconds=TTL_SECONDS) for number in range(500)]
            assert team.call("POST", "/registry/register", items).status == 200
        wait_for(lambda: registry.sql(LISTED_SECONDS)[0][0] >= size, 120)
        ((count, shortest),) = registry.sql(LISTED_SECONDS)
        print(
            f"\n{count} of TTL {TTL_SECONDS} s expired, the first after {shortest:.3f} s; 0 of {count} before the TTL"
        )
        assert count == size
        assert shortest >= TTL_SECONDS


@dataclass
class Racer:
    """An instance whose heartbeats arrive within 10 ms of their deadlines."""

    name: str
    acknowledged: list[float] = field(default_factory=list)  # times of its heartbeats by the database's clock
    recovered: int = 0
    absent: int = 0

    async def run(self, fleet: Fleet, until: float) -> None:
        connection = Connection(random.choice(fleet.ports), fleet.bearer)
        item = {"service_name": "race", "instance_id": self.name}
        body = registration("race", self.name, ttl_seconds=TTL_SECONDS)
        await asyncio.sleep(random.uniform(0, TTL_SECONDS))
        _, answer = await connection.call("POST", "/registry/register", body, 10)
        while time.monotonic() < until:
            deadline = datetime.fromisoformat(answer["lease"]["expires_at"]).timestamp()
            await sleep_until(deadline - 0.2)
            await connection.connect()  # the web server closes idle connections
            await sleep_until(deadline + random.uniform(-0.01, 0.01) - LATENCY_SECONDS)
            status, answer = await connection.call("POST", "/registry/heartbeat", item, 10)
            assert status == 200, answer
            self.acknowledged.append(datetime.fromisoformat(answer["lease"]["heartbeat_at"]).timestamp())
            self.recovered += answer.get("recovered", False)
            _, found = await connection.call("GET", "/registry/services/race", None, 10)
            self.absent += self.name not in {instance["instance_id"] for instance in found["instances"]}
        connection.close()


async def sleep_until(moment: float) -> None:
    await asyncio.sleep(max(0, moment - time.time()))


@pytest.mark.short
def test_instance_whose_heartbeat_at_the_deadline_got_200_is_listed(tmp_path: Path) -> None:
    """The heartbeat and the sweep need the same row. A late heartbeat restores the instance; after one in time it must
    not expire."""
    with start_unprotected(tmp_path) as registry:
        registry.start("-m", "tests.faults.sweeper", "0.1")
        fleet = Fleet(registry.ports)
        racers = [Racer(f"i-{number}") for number in range(LEASES)]
        until = time.monotonic() + choose_seconds(180, 25)

        async def race() -> None:
            async with asyncio.TaskGroup() as tasks:
                for racer in racers:
                    tasks.create_task(racer.run(fleet, until))

        asyncio.run_coroutine_threadsafe(race(), fleet.loop).result(300)
        fleet.stop()
        expired: dict[str, list[float]] = defaultdict(list)
        for name, at in sorted(registry.sql(EXPIRED), key=lambda row: row[1]):
            expired[name].append(at)
        heartbeats = sum(len(racer.acknowledged) for racer in racers)
        recovered = sum(racer.recovered for racer in racers)
        evicted = [
            (racer.name, heartbeat_at)
            for racer in racers
            for heartbeat_at in racer.acknowledged
            if was_expired_within_ttl(expired[racer.name], heartbeat_at)
        ]
        absent = sum(racer.absent for racer in racers)
        print(
            f"\n{heartbeats} heartbeats within 10 ms of the deadline, {recovered} of which restored the instance; "
            f"{absent} of {heartbeats} got 200 and were absent, {len(evicted)} of {heartbeats} expired within their TTL"
        )
        assert heartbeats / 2 > recovered > heartbeats / 200  # a sweep falls into the 10 ms of one in twenty
        assert absent == 0
        assert evicted == []


def was_expired_within_ttl(expired: list[float], heartbeat_at: float) -> bool:
    """Return whether one of these expiries was within the TTL after a heartbeat."""
    place = bisect_right(expired, heartbeat_at)
    return place < len(expired) and expired[place] < heartbeat_at + TTL_SECONDS


AGE = """
UPDATE service_registry_lease SET heartbeat_at = heartbeat_at - interval '1 minute';
UPDATE service_registry_registrystate SET window_started_at = window_started_at - interval '10 minutes'
"""


@pytest.mark.short
def test_three_concurrent_sweeps_log_each_expiry_once(tmp_path: Path) -> None:
    rounds, size = count_trials(100, 20), 20
    with start_unprotected(tmp_path) as registry:
        team = registry.caller("registry-services", "team")
        command = [sys.executable, "-m", "tests.faults.sweeper"]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        sweepers: list[Any] = [
            subprocess.Popen(command, env=registry.environment, cwd=ROOT, text=True, **pipes) for _ in range(3)
        ]
        registry.started += sweepers
        results: Counter[str] = Counter()
        for _ in range(rounds):
            items = [registration("web", f"i-{number}", ttl_seconds=TTL_SECONDS) for number in range(size)]
            assert team.call("POST", "/registry/register", items).status == 200
            registry.execute(AGE)
            for sweeper in sweepers:
                sweeper.stdin.write("\n")
                sweeper.stdin.flush()
            results.update(sweeper.stdout.readline().strip() for sweeper in sweepers)
        for sweeper in sweepers:
            sweeper.stdin.close()
            sweeper.stdout.close()
        logged = Counter(name for name, _at in registry.sql(EXPIRED))
        print(
            f"\n3 sweeps at once, {rounds} times: {dict(results)}; {sum(logged.values())} of {rounds * size} expiries"
        )
        assert set(logged.values()) == {rounds}
        assert len(logged) == size


@pytest.mark.short
def test_reader_of_the_log_beside_writers_overlooks_no_change(tmp_path: Path) -> None:
    with start_unprotected(tmp_path) as registry:
        fleet = Fleet(registry.ports)
        checker = Checker(registry, fleet)
        until = time.monotonic() + choose_seconds(20, 8)

        def write(writer: int) -> None:
            caller = registry.caller_with_token(fleet.bearer, writer % 2)
            number = 0
            while time.monotonic() < until:
                number += 1
                body = [registration(f"log-{writer}", f"i-{item}", port=1 + number) for item in range(3)]
                assert caller.call("POST", "/registry/register", body).status == 200

        writers = [threading.Thread(target=write, args=(writer,)) for writer in range(8)]
        for thread in writers:
            thread.start()
        for thread in writers:
            thread.join()
        time.sleep(1)
        checker.stop()
        fleet.stop()
        overlooked = checker.find_overlooked()
        print(f"\n{len(checker.followed)} changes of 8 writers read as they came; {len(overlooked)} overlooked")
        assert len(checker.followed) > 200
        assert overlooked == set()
