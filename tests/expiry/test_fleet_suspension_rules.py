"""The rules of suspension over plain numbers."""

import pytest

from service_registry.expiry.fleet_suspension import (
    FleetActivity,
    Suspension,
    end_suspension,
    find_median_ttl,
    is_fleet_quiet,
    start_suspension,
    update_suspension,
)
from service_registry.expiry.protection import Cohort

HOUR = 3600
MONTH = 30 * 86400.0


def test_median_ttl_is_that_of_leases_and_not_of_ttls() -> None:
    cohorts = [Cohort(5, 10, 0, 0, 0), Cohort(300, 12, 0, 0, 0), Cohort(30, 4, 0, 0, 0)]
    assert find_median_ttl(cohorts) == 30
    assert find_median_ttl([Cohort(5, 13, 0, 0, 0), Cohort(30, 12, 0, 0, 0)]) == 5


def test_cohort_without_live_leases_has_no_last_renewal() -> None:
    cohorts = [Cohort(30, 20, 0, 0, 100.0), Cohort(60, 0, 0, 5, 1000.0)]
    assert is_fleet_quiet(121.0, cohorts)
    assert not is_fleet_quiet(119.0, cohorts)


def test_repeated_suspensions_get_half_of_the_time_after_the_first_hour() -> None:
    """A fleet in lockstep sends heartbeats every 40 s: expiry is suspended for half of the time, beside the hour."""
    suspension, suspended_seconds = Suspension(), 0.0
    for heartbeat_at in range(0, 40 * 1000, 40):
        suspension = start_suspension(suspension, float(heartbeat_at), HOUR)
        assert suspension.started_at is not None
        assert suspension.until is not None
        suspended_seconds += max(0.0, min(suspension.until, heartbeat_at + 40.0) - suspension.started_at)
        suspension = end_suspension(suspension, heartbeat_at + 40.0)
    assert HOUR < suspended_seconds <= (40 * 1000 + HOUR) / 2 + 40


def test_suspension_that_started_in_the_future_uses_no_budget() -> None:
    """The clock has been set back by a month since: the next suspension may last an hour."""
    activity = FleetActivity(100.0, [Cohort(30, 30, 30, 0, 75.0)], None)
    ended = update_suspension(Suspension(MONTH, MONTH + HOUR), activity, lambda: 3, HOUR)
    assert ended == Suspension()
    assert update_suspension(ended, activity, lambda: 3, HOUR) == Suspension(75.0, 75.0 + HOUR)


def test_budget_that_is_full_only_in_a_month_is_full() -> None:
    """The suspension before ended while the clock was ahead."""
    assert start_suspension(Suspension(budget_full_at=MONTH), 75.0, HOUR) == Suspension(75.0, 75.0 + HOUR)
    empty = start_suspension(Suspension(budget_full_at=75.0 + HOUR), 75.0, HOUR)
    assert empty == Suspension(75.0, 75.0, budget_full_at=75.0 + HOUR)


@pytest.mark.parametrize(("now", "active"), [(99.0, False), (100.0, True), (3699.0, True), (3700.0, False)])
def test_suspension_is_active_from_its_start_until_its_end(now: float, active: bool) -> None:
    assert start_suspension(Suspension(), 100.0, HOUR).is_active(now) == active
