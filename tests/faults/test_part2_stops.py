"""The registry is down for many TTLs: instances with heartbeats before and after stay on the list."""

import time
from pathlib import Path

import pytest

from tests.faults.timing import TTL_SECONDS, count_trials
from tests.faults.trial import split_in_three, start_trial
from tests.waiting import wait_for

pytestmark = [pytest.mark.faults, pytest.mark.timeout(540)]

SWEPT = "SELECT swept_at FROM service_registry_registrystate"


@pytest.mark.parametrize("size", [300, pytest.param(2, marks=pytest.mark.short)])
def test_fleet_without_retries_stays_listed_after_postgresql_was_stopped(tmp_path: Path, size: int) -> None:
    """Two leases are too few to be protected: they stay because expiry was suspended."""
    ttls = count_trials(10, 2)
    with start_trial(tmp_path, split_in_three(size), per_host=5 if size > 2 else 1, repeats=False) as trial:
        trial.registry.postgres.stop()
        time.sleep(ttls * TTL_SECONDS)
        trial.registry.postgres.start()
        trial.assert_fleet_stayed_listed(f"PostgreSQL stopped for {ttls} TTLs", 1)


def test_fleet_stays_listed_after_postgresql_was_frozen(tmp_path: Path) -> None:
    """The kernel still accepts connections: nothing fails at once, everything fails after its timeout."""
    ttls = count_trials(4, 2)
    with start_trial(tmp_path) as trial:
        with trial.registry.frozen_postgres():
            time.sleep(ttls * TTL_SECONDS)
        trial.assert_fleet_stayed_listed(f"PostgreSQL frozen for {ttls} TTLs", 1)


def test_fleet_stays_listed_after_all_web_processes_were_stopped(tmp_path: Path) -> None:
    ttls = count_trials(4, 2)
    with start_trial(tmp_path) as trial:
        for process in trial.registry.web:
            process.kill()
            process.wait()
        time.sleep(ttls * TTL_SECONDS)
        swept = trial.registry.sql(SWEPT)
        wait_for(lambda: trial.registry.sql(SWEPT) != swept)  # the worker swept in the meantime
        trial.registry.web = [trial.registry.start_web(port) for port in trial.registry.ports]
        trial.assert_fleet_stayed_listed(f"all web processes stopped for {ttls} TTLs, worker alive", 1)
