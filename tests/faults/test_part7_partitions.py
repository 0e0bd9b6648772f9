"""Instances that live and are not heard: a part of the fleet, or all of it, for ten TTLs."""

import time
from pathlib import Path

import pytest

from tests.faults.fleet import Host, cut_off, heal
from tests.faults.timing import TTL_SECONDS, trials
from tests.faults.trial import in_three, stage

pytestmark = [pytest.mark.faults, pytest.mark.timeout(540)]


def share_of(hosts: list[Host], percent: int) -> list[Host]:
    """That share, spread evenly over the services."""
    return [host for number, host in enumerate(hosts) if number * 37 % 100 < percent]


@pytest.mark.parametrize("percent", [20, 60, 100])
def test_a_part_of_a_thousand_is_cut_off(tmp_path: Path, percent: int) -> None:
    size, ttls = trials(1000, 300), trials(10, 3)
    with stage(tmp_path, in_three(size), per_host=5) as at:
        hosts = share_of(at.fleet.hosts, percent)
        cut_off(hosts)
        time.sleep(ttls * TTL_SECONDS)
        heal(hosts)
        at.assert_none_was_off_the_list(f"{percent} % of {size} cut off for {ttls} TTLs", 1)
        if percent < 100:  # of all there is nobody to be held: time stands still
            at.assert_were_held(hosts)
