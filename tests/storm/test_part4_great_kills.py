"""The other half while all web processes are killed at once: nothing that was kept in memory is left."""

from pathlib import Path

import pytest

from tests.storm.storm import Storm, kill_all
from tests.wire.running import Running

pytestmark = [pytest.mark.storm, pytest.mark.timeout(540)]


def test_every_change_comes_once_and_in_order_while_all_processes_are_killed(registry: Running, tmp_path: Path) -> None:
    storm = Storm(registry, tmp_path, seed=4, disturb=kill_all)
    storm.assert_every_change_comes_once_and_in_order("all web processes kill -9")
