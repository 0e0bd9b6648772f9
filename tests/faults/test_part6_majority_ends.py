"""60 % of a thousand end at once, which looks like a partition: protected at first, and expired in the end."""

import time
from pathlib import Path

import pytest

from tests.faults.fleet import kill
from tests.faults.test_part5_ended_instances import print_times, wait_until_expired
from tests.faults.timing import PROTECTION_SECONDS, SCALE, count_trials
from tests.faults.trial import split_in_three, start_trial
from tests.waiting import wait_for

pytestmark = [pytest.mark.faults, pytest.mark.timeout(540)]

PROTECTED_WITHIN_SECONDS = 60 / SCALE
EXPIRED_WITHIN_SECONDS = 1200 / SCALE


def test_majority_of_a_fleet_that_ends_is_protected_and_then_expires(tmp_path: Path) -> None:
    size = count_trials(1000, 200)
    environment = {} if size == 1000 else {"REGISTRY_PROTECTION_MAX_SECONDS": str(PROTECTION_SECONDS // 6)}
    with start_trial(tmp_path, split_in_three(size), per_host=10, environment=environment) as trial:
        began = time.monotonic()
        dead = kill(trial.fleet.hosts[::5] + trial.fleet.hosts[1::5] + trial.fleet.hosts[2::5])
        wait_for(lambda: len(trial.checker.protected) == len(dead), PROTECTED_WITHIN_SECONDS)
        print(f"\n{len(dead)} of {size} die: all shown protected after {time.monotonic() - began:.1f} s")
        passed = wait_until_expired(trial, dead, EXPIRED_WITHIN_SECONDS)
        print_times(f"{len(dead)} of {size} die", passed, EXPIRED_WITHIN_SECONDS)
        assert passed[-1] <= EXPIRED_WITHIN_SECONDS
        trial.assert_fleet_stayed_listed("the survivors", 1)
