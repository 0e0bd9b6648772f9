"""Half of the changes, to streams and polls that leave and resume."""

from pathlib import Path

import pytest

from tests.server.registry import Registry
from tests.watch_consistency.run import ConsistencyRun

pytestmark = [pytest.mark.watch_consistency, pytest.mark.timeout(540)]


def test_changes_without_faults_are_sent_once_in_order(registry: Registry, tmp_path: Path) -> None:
    run = ConsistencyRun(registry, tmp_path, seed=1)
    run.assert_every_change_is_sent_once_in_order("without faults")
