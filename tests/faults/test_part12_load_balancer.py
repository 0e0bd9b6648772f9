"""Nobody is heard at all, and the registry works: a load balancer that is down."""

import time
from pathlib import Path

import pytest

from tests.faults.fleet import cut_off, heal
from tests.faults.timing import SCALE, trials
from tests.faults.trial import stage

pytestmark = [pytest.mark.faults, pytest.mark.timeout(540)]


def test_the_load_balancer_is_down_for_twenty_minutes(tmp_path: Path) -> None:
    """For longer than any hold: time stands still."""
    minutes = trials(20, 2)
    with stage(tmp_path) as at:
        cut_off(at.fleet.hosts)
        time.sleep(minutes * 60 / SCALE)
        heal(at.fleet.hosts)
        at.assert_none_was_off_the_list(f"load balancer down for {minutes} minutes of TTL 30", 1)
