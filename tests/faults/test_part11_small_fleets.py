"""Fleets so small that their end and a network fault look alike."""

import time
from pathlib import Path

import pytest

from tests.faults.fleet import isolate, kill, reconnect
from tests.faults.test_part5_ended_instances import SMALL_FLEET_SECONDS, print_times, wait_until_expired
from tests.faults.timing import OFF_THE_LIST_SECONDS, TTL_SECONDS, count_trials
from tests.faults.trial import start_trial

pytestmark = [pytest.mark.faults, pytest.mark.timeout(540)]

TEN_SERVICES = {f"small-{number}": 5 for number in range(10)}


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
def test_small_fleet_that_ends_expires_in_time(tmp_path: Path, size: int) -> None:
    with start_trial(tmp_path, {"small": size}, per_host=1) as trial:
        time.sleep(TTL_SECONDS / 2)
        allowed = OFF_THE_LIST_SECONDS if size < 3 else SMALL_FLEET_SECONDS
        passed = wait_until_expired(trial, kill(trial.fleet.hosts), allowed)
        print_times(f"a fleet of {size} dies whole", passed, allowed)
        assert passed[-1] <= allowed


def test_isolated_fifth_of_small_services_is_protected(tmp_path: Path) -> None:
    ttls = count_trials(10, 3)
    with start_trial(tmp_path, TEN_SERVICES, per_host=1) as trial:
        hosts = trial.fleet.hosts[::5]
        isolate(hosts)
        time.sleep(ttls * TTL_SECONDS)
        reconnect(hosts)
        trial.assert_fleet_stayed_listed(f"20 % of 50 in 10 services cut off for {ttls} TTLs", 1)
        trial.assert_were_protected(hosts)
