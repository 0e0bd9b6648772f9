"""Half of the changes, while all web processes are killed at once: nothing is left in memory."""

from pathlib import Path

import pytest

from tests.server.registry import Registry
from tests.watch_consistency.run import ConsistencyRun, kill_all

pytestmark = [pytest.mark.watch_consistency, pytest.mark.timeout(540)]


def test_changes_while_all_processes_are_killed_are_sent_once_in_order(registry: Registry, tmp_path: Path) -> None:
    run = ConsistencyRun(registry, tmp_path, seed=4, disturb=kill_all)
    run.assert_every_change_is_sent_once_in_order("all web processes killed")
