"""Sweeps that are stopped, some of them in the middle of a transaction."""

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
from tests.faults.test_part4_races import AGE, EXPIRED, TTL_SECONDS, start_unprotected, was_expired_within_ttl
from tests.faults.timing import count_trials
from tests.faults.trial import start_trial
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
def test_fleet_stays_listed_while_sweeps_are_frozen(tmp_path: Path, seconds: int) -> None:
    """At random points: some are in the middle of a transaction, which PostgreSQL ends after three seconds."""
    count = count_trials(20, 2)
    with start_trial(tmp_path) as trial:
        pid = worker_pid(trial.registry)
        for _ in range(count):
            time.sleep(random.uniform(0.2, 1.5))
            with frozen(pid):
                time.sleep(seconds)
        trial.assert_fleet_stayed_listed(f"worker frozen for {seconds} s", count)


def worker_pid(registry: Registry) -> int:
    assert registry.celery is not None
    return registry.celery.pid


LEASES = 100
SWEEPER = "sweeper-to-be-frozen"
STATE = "SELECT state, query FROM pg_stat_activity WHERE application_name = %s"
FOUND_DUE_LEASES = "-- Locks due leases"
LOOK_SECONDS = 5


def test_heartbeat_during_a_frozen_sweep_prevents_expiry(tmp_path: Path) -> None:
    """Between the search for due leases and their expiry: a heartbeat that gets 200 then must count."""
    rounds = count_trials(30, 6)
    frozen_over, acknowledged = 0, []
    with start_unprotected(tmp_path) as registry, psycopg.connect(registry.postgres.url, autocommit=True) as looking:
        pid = start_sweeper(registry)
        wait_for(lambda: looking.execute(STATE, [SWEEPER]).fetchone())
        for _ in range(rounds):
            team = registry.caller("registry-services", "team")
            items = [registration("race", f"i-{number}", ttl_seconds=TTL_SECONDS) for number in range(LEASES)]
            assert team.call("POST", "/registry/register", items).status == 200
            registry.execute(AGE)
            try:
                if stop_after_the_search(looking, pid):
                    frozen_over += 1
                    acknowledged += send_all_heartbeats(team)
            finally:
                os.kill(pid, signal.SIGCONT)
            time.sleep(0.5)  # the sweep goes on
        expired = defaultdict(list)
        for name, at in sorted(registry.sql(EXPIRED), key=lambda row: row[1]):
            expired[name].append(at)
    evicted = [
        (name, heartbeat_at)
        for name, heartbeat_at in acknowledged
        if was_expired_within_ttl(expired[name], heartbeat_at)
    ]
    print(
        f"\n{frozen_over} of {rounds} freezes hit a sweep that had found {LEASES} due leases; {len(acknowledged)} "
        f"heartbeats got 200 meanwhile, {len(evicted)} of them expired within their TTL"
    )
    assert frozen_over >= rounds / 2
    assert evicted == []


def start_sweeper(registry: Registry) -> int:
    """Start a process that sweeps all the time, on a connection with a separate name. Returns its id."""
    url = f"{registry.postgres.url}?application_name={SWEEPER}"
    command = [sys.executable, "-m", "tests.faults.sweeper", "0.1"]
    registry.started.append(subprocess.Popen(command, env=registry.environment | {"DATABASE_URL": url}, cwd=ROOT))
    return registry.started[-1].pid


def stop_after_the_search(looking: psycopg.Connection, pid: int) -> bool:
    """Let the sweep run for a moment at a time until it has found the due leases, and leave it stopped there.

    Returns False when it never stopped there.
    """
    until = time.monotonic() + LOOK_SECONDS
    while time.monotonic() < until:
        os.kill(pid, signal.SIGSTOP)
        state, query = settled_state(looking)
        if state == "idle in transaction" and FOUND_DUE_LEASES in query:
            return True
        os.kill(pid, signal.SIGCONT)
        time.sleep(random.uniform(0, 0.001))
    return False


def settled_state(looking: psycopg.Connection) -> tuple[str, str]:
    """Return the state and query of the sweep's connection, once the server has executed what was sent before."""
    while True:
        row = looking.execute(STATE, [SWEEPER]).fetchone()
        if row is None:  # its transaction was ended, and it has not connected again
            return "", ""
        if row[0] != "active":
            return row[0], row[1]


def send_all_heartbeats(team: Caller) -> list[tuple[str, float]]:
    """Send all heartbeats in one array. Returns those that got 200, with their times by the database's clock.

    There are none where the sweep holds the locks; PostgreSQL does not end its transaction so soon.
    """
    names = [f"i-{number}" for number in range(LEASES)]
    reply = team.call("POST", "/registry/heartbeat", [{"service_name": "race", "instance_id": name} for name in names])
    results = reply.json["results"] if reply.status == 200 else []
    return [
        (name, datetime.fromisoformat(result["lease"]["heartbeat_at"]).timestamp())
        for name, result in zip(names, results, strict=bool(results))
        if result["status"] == 200
    ]
