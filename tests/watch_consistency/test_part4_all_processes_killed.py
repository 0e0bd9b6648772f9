"""The other half while all web processes are killed at once: nothing that was kept in memory is left."""

from pathlib import Path

import pytest

from tests.server.registry import Registry
from tests.watch_consistency.run import ConsistencyRun, kill_all

pytestmark = [pytest.mark.watch_consistency, pytest.mark.timeout(540)]


def test_all_changes_are_sent_once_in_order_while_all_processes_are_killed(registry: Registry, tmp_path: Path) -> None:
    storm = ConsistencyRun(registry, tmp_path, seed=4, disturb=kill_all)
    storm.assert_every_change_comes_once_and_in_order("all web processes kill -9")
