"""Half of the changes, while web processes lose the connections on which they read the log."""

from pathlib import Path

import pytest

from tests.server.registry import Registry
from tests.watch_consistency.run import ConsistencyRun, terminate_feeds

pytestmark = [pytest.mark.watch_consistency, pytest.mark.timeout(540)]


def test_changes_while_feed_connections_are_lost_are_sent_once_in_order(registry: Registry, tmp_path: Path) -> None:
    run = ConsistencyRun(registry, tmp_path, seed=5, disturb=terminate_feeds)
    run.assert_every_change_is_sent_once_in_order("feed connections terminated")
