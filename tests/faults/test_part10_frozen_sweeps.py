"""The sweep stands still, now and then in the middle of a transaction."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import psycopg
import pytest

from tests.client import registration
from tests.faults.test_part4_races import AGE, EXPIRED, TTL_SECONDS, registry_of, taken_off
from tests.faults.timing import trials
from tests.faults.trial import stage
from tests.server.registry import ROOT, Caller, Registry
from tests.waiting import wait_for

pytestmark = [pytest.mark.faults, pytest.mark.timeout(540)]


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("seconds", [2, 10])
def test_the_sweep_is_frozen(tmp_path: Path, seconds: int) -> None:
    """At random points: now and then in the middle of a transaction, which PostgreSQL ends after three seconds."""
    count = trials(20, 2)
    with stage(tmp_path) as at:
        pid = worker_pid(at.registry)
        for _ in range(count):
            time.sleep(random.uniform(0.2, 1.5))
            with frozen(pid):
                time.sleep(seconds)
        at.assert_none_was_off_the_list(f"worker frozen for {seconds} s", count)


def worker_pid(registry: Registry) -> int:
    assert registry.celery is not None
    return registry.celery.pid


LEASES = 100
SWEEPER = "sweeper-to-be-frozen"
STATE = "SELECT state, query FROM pg_stat_activity WHERE application_name = %s"
FOUND_THE_DUE = "-- Locks due leases"
LOOK_SECONDS = 5


def test_whoever_beats_while_a_sweep_is_frozen_over_the_due_is_not_taken_off(tmp_path: Path) -> None:
    """Between finding who is due and letting them go: a beat that is answered 200 then must count."""
    rounds = trials(30, 6)
    frozen_over, acknowledged = 0, []
    with registry_of(tmp_path) as registry, psycopg.connect(registry.postgres.url, autocommit=True) as looking:
        pid = start_sweeper(registry)
        wait_for(lambda: looking.execute(STATE, [SWEEPER]).fetchone())
        for _ in range(rounds):
            team = registry.caller("registry-services", "team")
            items = [registration("race", f"i-{number}", ttl_seconds=TTL_SECONDS) for number in range(LEASES)]
            assert team.call("POST", "/registry/register", items).status == 200
            registry.execute(AGE)
            try:
                if stop_over_the_due(looking, pid):
                    frozen_over += 1
                    acknowledged += beat_all(team)
            finally:
                os.kill(pid, signal.SIGCONT)
            time.sleep(0.5)  # the sweep goes on
        expired = defaultdict(list)
        for name, at in sorted(registry.sql(EXPIRED), key=lambda row: row[1]):
            expired[name].append(at)
    evicted = [(name, beat) for name, beat in acknowledged if taken_off(expired[name], beat)]
    print(
        f"\n{frozen_over} of {rounds} freezes hit a sweep that had found {LEASES} due leases; {len(acknowledged)} "
        f"beats were answered 200 meanwhile, {len(evicted)} of them were taken off within their TTL"
    )
    assert frozen_over >= rounds / 2
    assert evicted == []


def start_sweeper(registry: Registry) -> int:
    """A process that sweeps all the time, by a connection that can be told from others. Its id."""
    url = f"{registry.postgres.url}?application_name={SWEEPER}"
    command = [sys.executable, "-m", "tests.faults.sweeper", "0.1"]
    registry.started.append(subprocess.Popen(command, env=registry.environment | {"DATABASE_URL": url}, cwd=ROOT))
    return registry.started[-1].pid


def stop_over_the_due(looking: psycopg.Connection, pid: int) -> bool:
    """Let the sweep run for a moment at a time until it stands where it has found who is due, and leave it stopped.

    False when it never stood there.
    """
    until = time.monotonic() + LOOK_SECONDS
    while time.monotonic() < until:
        os.kill(pid, signal.SIGSTOP)
        state, query = settled_state(looking)
        if state == "idle in transaction" and FOUND_THE_DUE in query:
            return True
        os.kill(pid, signal.SIGCONT)
        time.sleep(random.uniform(0, 0.001))
    return False


def settled_state(looking: psycopg.Connection) -> tuple[str, str]:
    """What the sweep's connection does, once the server has done what it was asked before the stop."""
    while True:
        row = looking.execute(STATE, [SWEEPER]).fetchone()
        if row is None:  # its transaction was ended, and it has not connected again
            return "", ""
        if row[0] != "active":
            return row[0], row[1]


def beat_all(team: Caller) -> list[tuple[str, float]]:
    """Beat for all of them in one call: whose beat was answered 200, and when by the database's clock.

    None where the sweep has locked them; PostgreSQL does not yet end its transaction by then.
    """
    names = [f"i-{number}" for number in range(LEASES)]
    reply = team.call("POST", "/registry/heartbeat", [{"service_name": "race", "instance_id": name} for name in names])
    results = reply.json["results"] if reply.status == 200 else []
    return [
        (name, datetime.fromisoformat(result["lease"]["heartbeat_at"]).timestamp())
        for name, result in zip(names, results, strict=bool(results))
        if result["status"] == 200
    ]
