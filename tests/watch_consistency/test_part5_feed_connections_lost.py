"""Half of them while web processes lose, again and again, the connections on which they read the log."""

from pathlib import Path

import pytest

from tests.server.registry import Registry
from tests.watch_consistency.run import ConsistencyRun, end_feeds

pytestmark = [pytest.mark.watch_consistency, pytest.mark.timeout(540)]


def test_every_change_comes_once_and_in_order_while_feeds_are_cut(registry: Registry, tmp_path: Path) -> None:
    storm = ConsistencyRun(registry, tmp_path, seed=5, disturb=end_feeds)
    storm.assert_every_change_comes_once_and_in_order("feeds cut")
