"""Half of the changes, while one of the web processes is killed at random moments."""

from pathlib import Path

import pytest

from tests.server.registry import Registry
from tests.watch_consistency.run import ConsistencyRun, kill_one

pytestmark = [pytest.mark.watch_consistency, pytest.mark.timeout(540)]


def test_changes_while_one_process_is_killed_are_sent_once_in_order(registry: Registry, tmp_path: Path) -> None:
    run = ConsistencyRun(registry, tmp_path, seed=3, disturb=kill_one)
    run.assert_every_change_is_sent_once_in_order("one web process killed")
