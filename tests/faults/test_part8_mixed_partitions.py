"""Overlapping partitions, several TTLs, uneven services, hosts that reconnect one by one, and a short total outage."""

import time
from pathlib import Path

import pytest

from tests.faults.fleet import isolate, reconnect
from tests.faults.test_part7_partitions import select_share
from tests.faults.timing import SCALE, TTL_SECONDS, count_trials
from tests.faults.trial import start_trial

pytestmark = [pytest.mark.faults, pytest.mark.timeout(540)]

UNEVEN = {"large": 900, "small-0": 50, "small-1": 50}


def test_second_partition_during_the_first_is_protected(tmp_path: Path) -> None:
    ttls = count_trials(10, 3)
    sizes = UNEVEN if ttls == 10 else {"large": 270, "small-0": 15, "small-1": 15}
    with start_trial(tmp_path, sizes, per_host=5) as trial:
        first, second = (
            select_share(trial.fleet.hosts, 20),
            [host for host in trial.fleet.hosts if host.service_name != "large"],
        )
        isolate(first)
        time.sleep(ttls * TTL_SECONDS / 2)
        isolate(second)
        time.sleep(ttls * TTL_SECONDS / 2)
        reconnect(first)
        time.sleep(ttls * TTL_SECONDS / 2)
        reconnect(second)
        trial.assert_fleet_stayed_listed(f"a second partition during the first, {ttls} TTLs each", 2)
        trial.assert_were_protected(first + second)


def test_isolated_leases_of_several_ttls_that_reconnect_one_by_one_stay_listed(tmp_path: Path) -> None:
    """When the others are due, the longest TTLs are not."""
    ttls = count_trials(10, 3)
    with start_trial(tmp_path, {"usual": 150}, per_host=5) as trial:
        trial.fleet.add("short", 75, ttl_seconds=5)
        trial.fleet.add("long", 75, ttl_seconds=10 * TTL_SECONDS)
        hosts = select_share(trial.fleet.hosts, 60)
        isolate(hosts)
        time.sleep(ttls * TTL_SECONDS)
        for host in hosts:
            reconnect([host])
            time.sleep(0.3)
        trial.assert_fleet_stayed_listed(
            f"60 % of TTLs of 5, 10 and 100 s cut off for {ttls} TTLs, reconnecting one by one", 1
        )
        trial.assert_were_protected(host for host in hosts if host.ttl_seconds < ttls * TTL_SECONDS)


def test_fleet_stays_listed_while_the_load_balancer_is_down_shortly(tmp_path: Path) -> None:
    """For less than the longest protection; part 12 has longer outages."""
    with start_trial(tmp_path) as trial:
        isolate(trial.fleet.hosts)
        time.sleep(120 / SCALE)
        reconnect(trial.fleet.hosts)
        trial.assert_fleet_stayed_listed("load balancer down for 2 minutes of TTL 30", 1)
