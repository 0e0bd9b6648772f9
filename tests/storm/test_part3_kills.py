"""Half of them while either web process is killed at random moments, and watchers resume at the other."""

from pathlib import Path

import pytest

from tests.storm.storm import Storm, kill_one
from tests.wire.running import Running

pytestmark = [pytest.mark.storm, pytest.mark.timeout(540)]


def test_every_change_comes_once_and_in_order_while_a_process_is_killed(registry: Running, tmp_path: Path) -> None:
    storm = Storm(registry, tmp_path, seed=3, disturb=kill_one)
    storm.assert_every_change_comes_once_and_in_order("web process kill -9")
