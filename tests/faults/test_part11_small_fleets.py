"""Fleets so small that the registry can hardly tell their end from a fault on the way to it."""

import time
from pathlib import Path

import pytest

from tests.faults.fleet import cut_off, heal, kill
from tests.faults.test_part5_deaths import SHORTLY_SECONDS, show, wait_until_gone
from tests.faults.timing import OFF_THE_LIST_SECONDS, TTL_SECONDS, trials
from tests.faults.trial import stage

pytestmark = [pytest.mark.faults, pytest.mark.timeout(540)]

TEN_SERVICES = {f"small-{number}": 5 for number in range(10)}


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
def test_a_small_fleet_dies_whole(tmp_path: Path, size: int) -> None:
    with stage(tmp_path, {"small": size}, per_host=1) as at:
        time.sleep(TTL_SECONDS / 2)
        allowed = OFF_THE_LIST_SECONDS if size < 3 else SHORTLY_SECONDS
        passed = wait_until_gone(at, kill(at.fleet.hosts), allowed)
        show(f"a fleet of {size} dies whole", passed, allowed)
        assert passed[-1] <= allowed


def test_a_fifth_of_fifty_in_ten_services_is_cut_off(tmp_path: Path) -> None:
    ttls = trials(10, 3)
    with stage(tmp_path, TEN_SERVICES, per_host=1) as at:
        hosts = at.fleet.hosts[::5]
        cut_off(hosts)
        time.sleep(ttls * TTL_SECONDS)
        heal(hosts)
        at.assert_none_was_off_the_list(f"20 % of 50 in 10 services cut off for {ttls} TTLs", 1)
        at.assert_were_held(hosts)
