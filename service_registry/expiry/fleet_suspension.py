"""Suspension: nothing expires while the whole fleet sends no heartbeat at all.

The registry is up meanwhile; for one that can receive no heartbeat see `observation_window.py`. No SQL, no clock, no
settings.

When all instances stop at the same moment, a fault between them and the registry, such as a load balancer that is down,
is more likely than their death. Nothing expires until the first heartbeat, within a limit. All times are seconds on one
clock.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from service_registry.expiry.protection import Cohort

# Of a fleet whose clients send a heartbeat every third of the TTL no lease is due yet when none was renewed for this
# share of the TTL.
QUIET_AFTER = 2 / 3
MINIMUM_LEASES = 20
MINIMUM_SERVICES = 3
# The part of the budget that is used is never more than the limit, except for the rounding of stored times.
ROUNDING_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Suspension:
    """The suspension of expiry, and the budget that limits it.

    It lasts from `started_at` until `until` at most. Suspensions use up a budget of the longest suspension that is
    allowed. Observation gives it back at the same rate: at `budget_full_at` expiry has run for as long as it was
    suspended before. A fleet that is quiet again and again is therefore suspended for the whole budget once, and
    then for half of the time at most.
    """

    started_at: float | None = None
    until: float | None = None
    budget_full_at: float | None = None

    def is_active(self, now: float) -> bool:
        return self.started_at is not None and self.until is not None and self.started_at <= now < self.until

    def find_window_restart(self, activity: "FleetActivity") -> float | None:
        """Return the heartbeat that ended the suspension and restarts the window.

        Returns None when there is none. A heartbeat after the suspension's time was over restarts nothing:
        otherwise repeated suspensions would keep dead instances for ever.
        """
        at = activity.first_heartbeat_at
        return at if at is not None and self.is_active(at) else None


@dataclass(frozen=True, slots=True)
class FleetActivity:
    """The fleet at one moment, and the first heartbeat since the suspension started.

    It is that of a proven lease, or None.
    """

    now: float
    cohorts: Sequence[Cohort]
    first_heartbeat_at: float | None


def is_fleet_quiet(now: float, cohorts: Sequence[Cohort]) -> bool:
    """Return whether a large enough fleet had no renewal for 2/3 of its median TTL."""
    if sum(cohort.live for cohort in cohorts) < MINIMUM_LEASES:
        return False
    return now - find_last_renewal(cohorts) > QUIET_AFTER * find_median_ttl(cohorts)


def find_last_renewal(cohorts: Sequence[Cohort]) -> float:
    """Return the latest renewal of a live lease. There must be one."""
    return max(cohort.renewed_at for cohort in cohorts if cohort.live)


def find_median_ttl(cohorts: Sequence[Cohort]) -> int:
    """Return the median TTL of the live leases, in seconds. There must be one."""
    live = sum(cohort.live for cohort in cohorts)
    passed = 0
    for cohort in sorted(cohorts, key=lambda cohort: cohort.ttl_seconds):
        passed += cohort.live
        if 2 * passed >= live:
            return cohort.ttl_seconds
    raise ValueError("no lease is live")


def update_suspension(
    current: Suspension, activity: FleetActivity, count_services: Callable[[], int], max_seconds: float
) -> Suspension:
    """Return the suspension as `activity` shows it.

    A suspension starts at the fleet's last renewal and ends with the first heartbeat after it. The time of
    the sweep makes no difference: a late sweep decides the same.

    Args:
        current: the suspension as it was stored last.
        activity: the fleet as it is counted now.
        count_services: counts the services with a proven live lease. Called only when all other conditions of a
            suspension are met, because it is expensive.
        max_seconds: the longest suspension.
    """
    if current.started_at is not None:
        if current.started_at > activity.now:  # The clock has been set back: no suspension can be measured.
            return Suspension()
        at = activity.first_heartbeat_at
        return current if at is None else end_suspension(current, at)
    if is_fleet_quiet(activity.now, activity.cohorts) and count_services() >= MINIMUM_SERVICES:
        return start_suspension(current, find_last_renewal(activity.cohorts), max_seconds)
    return current


def start_suspension(current: Suspension, renewed_at: float, max_seconds: float) -> Suspension:
    """Return a suspension since the last renewal, for what is left of the budget."""
    used = max((current.budget_full_at or renewed_at) - renewed_at, 0.0)
    if used > max_seconds + ROUNDING_SECONDS:  # More than can be: the clock has been set back since.
        return Suspension(renewed_at, renewed_at + max_seconds)
    left = max(max_seconds - used, 0.0)
    return Suspension(renewed_at, renewed_at + left, current.budget_full_at)


def end_suspension(current: Suspension, first_heartbeat_at: float) -> Suspension:
    """Return the state after a suspension that the first heartbeat has ended."""
    assert current.started_at is not None, "only a suspension that has started ends"
    assert current.until is not None, "only a suspension that has started ends"
    suspended_seconds = max(min(first_heartbeat_at, current.until) - current.started_at, 0.0)
    budget_full_at = max(current.budget_full_at or current.started_at, current.started_at) + 2 * suspended_seconds
    return Suspension(budget_full_at=budget_full_at)
