"""The registry is away for many TTLs: who beats before and after stays on the list."""

import time
from pathlib import Path

import pytest

from tests.faults.timing import TTL_SECONDS, trials
from tests.faults.trial import in_three, stage
from tests.waiting import wait_for

pytestmark = [pytest.mark.faults, pytest.mark.timeout(540)]

SWEPT = "SELECT swept_at FROM service_registry_registrystate"


@pytest.mark.parametrize("size", [300, pytest.param(2, marks=pytest.mark.short)])
def test_postgresql_is_stopped_for_ten_ttls_and_clients_only_beat_at_their_interval(tmp_path: Path, size: int) -> None:
    """Of two nobody is held: what keeps these is that time stood still."""
    ttls = trials(10, 2)
    with stage(tmp_path, in_three(size), per_host=5 if size > 2 else 1, repeats=False) as at:
        at.registry.postgres.stop()
        time.sleep(ttls * TTL_SECONDS)
        at.registry.postgres.start()
        at.assert_none_was_off_the_list(f"PostgreSQL stopped for {ttls} TTLs", 1)


def test_postgresql_is_frozen_for_four_ttls(tmp_path: Path) -> None:
    """Its kernel still takes connections: nothing fails at once, everything after its deadline."""
    ttls = trials(4, 2)
    with stage(tmp_path) as at:
        with at.registry.frozen_postgres():
            time.sleep(ttls * TTL_SECONDS)
        at.assert_none_was_off_the_list(f"PostgreSQL frozen for {ttls} TTLs", 1)


def test_all_web_processes_are_stopped_for_four_ttls_and_the_worker_lives(tmp_path: Path) -> None:
    ttls = trials(4, 2)
    with stage(tmp_path) as at:
        for process in at.registry.web:
            process.kill()
            process.wait()
        time.sleep(ttls * TTL_SECONDS)
        swept = at.registry.sql(SWEPT)
        wait_for(lambda: at.registry.sql(SWEPT) != swept)  # the worker has swept all the while
        at.registry.web = [at.registry.start_web(port) for port in at.registry.ports]
        at.assert_none_was_off_the_list(f"all web processes stopped for {ttls} TTLs, worker alive", 1)
