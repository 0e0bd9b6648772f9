"""No heartbeats arrive at a registry that works: its load balancer is down."""

import time
from pathlib import Path

import pytest

from tests.faults.fleet import isolate, reconnect
from tests.faults.timing import SCALE, count_trials
from tests.faults.trial import start_trial

pytestmark = [pytest.mark.faults, pytest.mark.timeout(540)]


def test_fleet_stays_listed_while_the_load_balancer_is_down_for_long(tmp_path: Path) -> None:
    """For longer than any protection: expiry is suspended."""
    minutes = count_trials(20, 2)
    with start_trial(tmp_path) as trial:
        isolate(trial.fleet.hosts)
        time.sleep(minutes * 60 / SCALE)
        reconnect(trial.fleet.hosts)
        trial.assert_fleet_stayed_listed(f"load balancer down for {minutes} minutes of TTL 30", 1)
