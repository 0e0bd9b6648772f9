"""The other half of them."""

from pathlib import Path

import pytest

from tests.storm.storm import Storm
from tests.wire.running import Running

pytestmark = [pytest.mark.storm, pytest.mark.timeout(540)]


def test_every_change_comes_once_and_in_order_again(registry: Running, tmp_path: Path) -> None:
    storm = Storm(registry, tmp_path, seed=2)
    storm.assert_every_change_comes_once_and_in_order("calm, the other half")
