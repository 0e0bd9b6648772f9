"""Half of them while web processes lose, again and again, the connections on which they read the log."""

from pathlib import Path

import pytest

from tests.storm.storm import Storm, end_feeds
from tests.wire.running import Running

pytestmark = [pytest.mark.storm, pytest.mark.timeout(540)]


def test_every_change_comes_once_and_in_order_while_feeds_are_cut(registry: Running, tmp_path: Path) -> None:
    storm = Storm(registry, tmp_path, seed=5, disturb=end_feeds)
    storm.assert_every_change_comes_once_and_in_order("feeds cut")
