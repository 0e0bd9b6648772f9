"""Partitions that meet: a second while the first is held, several TTLs, uneven services, and healing one by one; and
all of a fleet for a short while."""

import time
from pathlib import Path

import pytest

from tests.faults.fleet import cut_off, heal
from tests.faults.test_part7_partitions import share_of
from tests.faults.timing import SCALE, TTL_SECONDS, trials
from tests.faults.trial import stage

pytestmark = [pytest.mark.faults, pytest.mark.timeout(540)]

UNEVEN = {"large": 900, "small-0": 50, "small-1": 50}


def test_a_second_partition_while_the_first_is_held(tmp_path: Path) -> None:
    ttls = trials(10, 3)
    sizes = UNEVEN if ttls == 10 else {"large": 270, "small-0": 15, "small-1": 15}
    with stage(tmp_path, sizes, per_host=5) as at:
        first, second = share_of(at.fleet.hosts, 20), [host for host in at.fleet.hosts if host.service_name != "large"]
        cut_off(first)
        time.sleep(ttls * TTL_SECONDS / 2)
        cut_off(second)
        time.sleep(ttls * TTL_SECONDS / 2)
        heal(first)
        time.sleep(ttls * TTL_SECONDS / 2)
        heal(second)
        at.assert_none_was_off_the_list(f"a second partition while the first is held, {ttls} TTLs each", 2)
        at.assert_were_held(first + second)


def test_several_ttls_in_one_fleet_and_healing_one_by_one(tmp_path: Path) -> None:
    """Only the longest TTLs are not yet due when the others are."""
    ttls = trials(10, 3)
    with stage(tmp_path, {"usual": 150}, per_host=5) as at:
        at.fleet.add("short", 75, ttl_seconds=5)
        at.fleet.add("long", 75, ttl_seconds=10 * TTL_SECONDS)
        hosts = share_of(at.fleet.hosts, 60)
        cut_off(hosts)
        time.sleep(ttls * TTL_SECONDS)
        for host in hosts:
            heal([host])
            time.sleep(0.3)
        at.assert_none_was_off_the_list(
            f"60 % of TTLs of 5, 10 and 100 s cut off for {ttls} TTLs, healing one by one", 1
        )
        at.assert_were_held(host for host in hosts if host.ttl_seconds < ttls * TTL_SECONDS)


def test_the_load_balancer_is_down_for_two_minutes(tmp_path: Path) -> None:
    """For less than a hold: see part 12 for longer ones."""
    with stage(tmp_path) as at:
        cut_off(at.fleet.hosts)
        time.sleep(120 / SCALE)
        heal(at.fleet.hosts)
        at.assert_none_was_off_the_list("load balancer down for 2 minutes of TTL 30", 1)
