"""Half of them while either web process is killed at random moments, and watchers resume at the other."""

from pathlib import Path

import pytest

from tests.server.registry import Registry
from tests.watch_consistency.run import ConsistencyRun, kill_one

pytestmark = [pytest.mark.watch_consistency, pytest.mark.timeout(540)]


def test_every_change_comes_once_and_in_order_while_a_process_is_killed(registry: Registry, tmp_path: Path) -> None:
    storm = ConsistencyRun(registry, tmp_path, seed=3, disturb=kill_one)
    storm.assert_every_change_comes_once_and_in_order("web process kill -9")
