"""Instances that end expire in time, whatever else happens, and no other instance with them."""

import math
import random
import time
from pathlib import Path

import pytest

from tests.client import registration
from tests.faults.fleet import kill
from tests.faults.timing import OFF_THE_LIST_SECONDS, SCALE, TTL_SECONDS, choose_seconds, count_trials
from tests.faults.trial import Trial, split_in_three, start_trial

pytestmark = [pytest.mark.faults, pytest.mark.timeout(540)]

# The longest protection of a fleet of a few, or of more than half of a service: 4 minutes at TTL 30.
SMALL_FLEET_SECONDS = 240 / SCALE
Key = tuple[str, str]

EXPIRED = """
SELECT service_name, instance_id, extract(epoch FROM at - (evidence->>'heartbeat_at')::timestamptz)::float8
FROM service_registry_change WHERE kind = 'expired' ORDER BY id
"""


def read_expired(trial: Trial, whom: set[Key]) -> dict[Key, float]:
    """Return those that have expired, with the seconds since the last heartbeat by the database's clock."""
    return {(service, name): passed for service, name, passed in trial.registry.sql(EXPIRED) if (service, name) in whom}


def wait_until_expired(trial: Trial, dead: set[Key], within_seconds: float) -> list[float]:
    """Return the sorted seconds from each one's last heartbeat to its expiry. Raises when some do not expire."""
    until = time.monotonic() + within_seconds + TTL_SECONDS
    while (still_listed := dead - read_expired(trial, dead).keys()) and time.monotonic() < until:
        time.sleep(0.05)
    assert still_listed == set()
    return sorted(read_expired(trial, dead).values())


def quantile(values: list[float], share: float) -> float:
    return values[math.ceil(share * len(values)) - 1]


def print_times(what: str, passed: list[float], allowed_seconds: float) -> None:
    print(
        f"\n{what}: {len(passed)} expired, p50 {quantile(passed, 0.5):.1f} s, p99 {quantile(passed, 0.99):.1f} s, last "
        f"{passed[-1]:.1f} s after the last heartbeat; allowed {allowed_seconds:.0f} s (TTL {TTL_SECONDS} s, scale "
        f"1:{SCALE:g})"
    )


def test_instances_of_a_large_fleet_that_end_one_by_one_expire_in_time(tmp_path: Path) -> None:
    deaths, size = count_trials(100, 10), count_trials(1000, 300)
    with start_trial(tmp_path, split_in_three(size - deaths), per_host=10) as trial:
        alone = trial.fleet.add("service-0", deaths, per_host=1, prefix="alone")
        dead: set[Key] = set()
        for host in alone:
            time.sleep(1)
            dead |= kill([host])
        passed = wait_until_expired(trial, dead, 2 * OFF_THE_LIST_SECONDS)
        print_times(f"one of {size} dies", passed, OFF_THE_LIST_SECONDS)
        assert quantile(passed, 0.99) <= OFF_THE_LIST_SECONDS
        assert passed[0] >= TTL_SECONDS
        trial.assert_fleet_stayed_listed("while others die one by one", deaths)


def test_instances_that_end_together_with_the_worker_expire_in_time(tmp_path: Path) -> None:
    """The web processes then sweep."""
    with start_trial(tmp_path) as trial:
        assert trial.registry.celery is not None
        trial.registry.celery.kill()
        trial.registry.celery.wait()
        passed = wait_until_expired(trial, kill(random.sample(trial.fleet.hosts, 2)), OFF_THE_LIST_SECONDS)
        print_times("the worker and 10 of 300 die", passed, OFF_THE_LIST_SECONDS)
        assert passed[-1] <= OFF_THE_LIST_SECONDS
        trial.assert_fleet_stayed_listed("without a worker", 1)


def test_majority_of_a_small_service_that_ends_expires_in_time(tmp_path: Path) -> None:
    with start_trial(tmp_path, split_in_three(count_trials(300, 100))) as trial:
        hosts = trial.fleet.add("eight", 8, per_host=1)
        passed = wait_until_expired(trial, kill(hosts[:5]), SMALL_FLEET_SECONDS)
        print_times("5 of a service of 8 die", passed, SMALL_FLEET_SECONDS)
        assert passed[-1] <= SMALL_FLEET_SECONDS
        trial.assert_fleet_stayed_listed("the three others and the rest", 1)


def test_expiry_is_not_delayed_by_a_crash_loop_or_the_end_of_another_service(tmp_path: Path) -> None:
    """New instances without a heartbeat, 200 of one service at once, and one of another service, at the same time."""
    allowed = TTL_SECONDS + 30 / SCALE + 5
    with start_trial(tmp_path, split_in_three(count_trials(600, 300)), per_host=10) as trial:
        tenant = trial.fleet.add("tenant", count_trials(200, 60), per_host=10)
        alone = trial.fleet.add("alone", 1, per_host=1)
        team = trial.registry.caller_with_token(trial.fleet.bearer)
        dead = kill(alone)
        kill(tenant)
        for loop in range(round(choose_seconds(40, 20))):
            items = [registration("loop", f"i-{loop}-{number}", ttl_seconds=TTL_SECONDS) for number in range(5)]
            assert team.call("POST", "/registry/register", items).status == 200
            time.sleep(0.3)
        passed = wait_until_expired(trial, dead, allowed)
        print_times("one dies beside a crash loop and a tenant's end", passed, allowed)
        assert passed[-1] <= allowed
        trial.assert_fleet_stayed_listed("the living beside them", 1)
