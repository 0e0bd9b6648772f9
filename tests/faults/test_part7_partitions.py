"""Partitions: no heartbeats arrive from a part of the fleet, or all of it, for ten TTLs."""

import time
from pathlib import Path

import pytest

from tests.faults.fleet import Host, isolate, reconnect
from tests.faults.timing import TTL_SECONDS, count_trials
from tests.faults.trial import split_in_three, start_trial

pytestmark = [pytest.mark.faults, pytest.mark.timeout(540)]


def select_share(hosts: list[Host], percent: int) -> list[Host]:
    """Return that share of the hosts, spread evenly over the services."""
    return [host for number, host in enumerate(hosts) if number * 37 % 100 < percent]


@pytest.mark.parametrize("percent", [20, 60, 100])
def test_isolated_part_of_a_fleet_stays_listed(tmp_path: Path, percent: int) -> None:
    size, ttls = count_trials(1000, 300), count_trials(10, 3)
    with start_trial(tmp_path, split_in_three(size), per_host=5) as trial:
        hosts = select_share(trial.fleet.hosts, percent)
        isolate(hosts)
        time.sleep(ttls * TTL_SECONDS)
        reconnect(hosts)
        trial.assert_fleet_stayed_listed(f"{percent} % of {size} cut off for {ttls} TTLs", 1)
        if percent < 100:  # with all of them expiry is suspended instead
            trial.assert_were_protected(hosts)
