"""60 % of a thousand die at once, which looks like a partition: held, shown so, and gone in the end."""

import time
from pathlib import Path

import pytest

from tests.faults.fleet import kill
from tests.faults.test_part5_deaths import show, wait_until_gone
from tests.faults.timing import HOLD_SECONDS, SCALE, trials
from tests.faults.trial import in_three, stage
from tests.waiting import wait_for

pytestmark = [pytest.mark.faults, pytest.mark.timeout(540)]

PROTECTED_WITHIN_SECONDS = 60 / SCALE
GONE_WITHIN_SECONDS = 1200 / SCALE


def test_sixty_percent_of_a_thousand_die(tmp_path: Path) -> None:
    size = trials(1000, 200)
    environment = {} if size == 1000 else {"REGISTRY_PROTECTION_MAX_SECONDS": str(HOLD_SECONDS // 6)}
    with stage(tmp_path, in_three(size), per_host=10, environment=environment) as at:
        began = time.monotonic()
        dead = kill(at.fleet.hosts[::5] + at.fleet.hosts[1::5] + at.fleet.hosts[2::5])
        wait_for(lambda: len(at.checker.protected) == len(dead), PROTECTED_WITHIN_SECONDS)
        print(f"\n{len(dead)} of {size} die: all shown protected after {time.monotonic() - began:.1f} s")
        passed = wait_until_gone(at, dead, GONE_WITHIN_SECONDS)
        show(f"{len(dead)} of {size} die", passed, GONE_WITHIN_SECONDS)
        assert passed[-1] <= GONE_WITHIN_SECONDS
        at.assert_none_was_off_the_list("the survivors", 1)
