"""The dead go in time, whatever else is going on, and nobody goes with them."""

import math
import random
import time
from pathlib import Path

import pytest

from tests.client import registration
from tests.faults.fleet import kill
from tests.faults.timing import OFF_THE_LIST_SECONDS, SCALE, TTL_SECONDS, seconds, trials
from tests.faults.trial import Stage, in_three, stage

pytestmark = [pytest.mark.faults, pytest.mark.timeout(540)]

# How long a fleet of a few, or more than half of a service, may stay: 4 minutes and 20 minutes of TTL 30.
SHORTLY_SECONDS = 240 / SCALE
Key = tuple[str, str]

GONE = """
SELECT service_name, instance_id, extract(epoch FROM at - (evidence->>'heartbeat_at')::timestamptz)::float8
FROM service_registry_change WHERE kind = 'expired' ORDER BY id
"""


def gone(at: Stage, whom: set[Key]) -> dict[Key, float]:
    """Who of them has left the list, and how long after its last heartbeat, by the database's clock."""
    return {(service, name): passed for service, name, passed in at.registry.sql(GONE) if (service, name) in whom}


def wait_until_gone(at: Stage, dead: set[Key], within_seconds: float) -> list[float]:
    """Sorted, in seconds from each one's last heartbeat to its end. Raises when they do not all leave."""
    until = time.monotonic() + within_seconds + TTL_SECONDS
    while (still_listed := dead - gone(at, dead).keys()) and time.monotonic() < until:
        time.sleep(0.05)
    assert still_listed == set()
    return sorted(gone(at, dead).values())


def quantile(values: list[float], share: float) -> float:
    return values[math.ceil(share * len(values)) - 1]


def show(what: str, passed: list[float], allowed_seconds: float) -> None:
    print(
        f"\n{what}: {len(passed)} gone, p50 {quantile(passed, 0.5):.1f} s, p99 {quantile(passed, 0.99):.1f} s, last "
        f"{passed[-1]:.1f} s after the last heartbeat; allowed {allowed_seconds:.0f} s (TTL {TTL_SECONDS} s, scale "
        f"1:{SCALE:g})"
    )


def test_one_of_a_thousand_dies_again_and_again(tmp_path: Path) -> None:
    deaths, size = trials(100, 10), trials(1000, 300)
    with stage(tmp_path, in_three(size - deaths), per_host=10) as at:
        alone = at.fleet.add("service-0", deaths, per_host=1, prefix="alone")
        dead: set[Key] = set()
        for host in alone:
            time.sleep(1)
            dead |= kill([host])
        passed = wait_until_gone(at, dead, 2 * OFF_THE_LIST_SECONDS)
        show(f"one of {size} dies", passed, OFF_THE_LIST_SECONDS)
        assert quantile(passed, 0.99) <= OFF_THE_LIST_SECONDS
        assert passed[0] >= TTL_SECONDS
        at.assert_none_was_off_the_list("while others die one by one", deaths)


def test_ten_die_and_so_does_the_worker(tmp_path: Path) -> None:
    """Any web process sweeps then."""
    with stage(tmp_path) as at:
        assert at.registry.celery is not None
        at.registry.celery.kill()
        at.registry.celery.wait()
        passed = wait_until_gone(at, kill(random.sample(at.fleet.hosts, 2)), OFF_THE_LIST_SECONDS)
        show("the worker and 10 of 300 die", passed, OFF_THE_LIST_SECONDS)
        assert passed[-1] <= OFF_THE_LIST_SECONDS
        at.assert_none_was_off_the_list("without a worker", 1)


def test_five_of_a_service_of_eight_die(tmp_path: Path) -> None:
    with stage(tmp_path, in_three(trials(300, 100))) as at:
        hosts = at.fleet.add("eight", 8, per_host=1)
        passed = wait_until_gone(at, kill(hosts[:5]), SHORTLY_SECONDS)
        show("5 of a service of 8 die", passed, SHORTLY_SECONDS)
        assert passed[-1] <= SHORTLY_SECONDS
        at.assert_none_was_off_the_list("the three others and the rest", 1)


def test_neither_a_crash_loop_nor_a_tenants_end_delays_anothers_death(tmp_path: Path) -> None:
    """New ids that never beat, 200 at once of one tenant; and one of another service, at the same time."""
    allowed = TTL_SECONDS + 30 / SCALE + 5
    with stage(tmp_path, in_three(trials(600, 300)), per_host=10) as at:
        tenant = at.fleet.add("tenant", trials(200, 60), per_host=10)
        alone = at.fleet.add("alone", 1, per_host=1)
        team = at.registry.caller_with_token(at.fleet.bearer)
        dead = kill(alone)
        kill(tenant)
        for loop in range(round(seconds(40, 20))):
            items = [registration("loop", f"i-{loop}-{number}", ttl_seconds=TTL_SECONDS) for number in range(5)]
            assert team.call("POST", "/registry/register", items).status == 200
            time.sleep(0.3)
        passed = wait_until_gone(at, dead, allowed)
        show("one dies beside a crash loop and a tenant's end", passed, allowed)
        assert passed[-1] <= allowed
        at.assert_none_was_off_the_list("the living beside them", 1)
