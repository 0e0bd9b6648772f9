"""A registry in memory, in virtual time.

It counts as `service_registry.expiry.counts` does in SQL (a test compares the two), and decides by the product's own
rules.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from service_registry.choices import Rule
from service_registry.expiry.fleet_suspension import FleetActivity, Suspension, update_suspension
from service_registry.expiry.protection import (
    LATE_AFTER,
    RECENT_EXPIRY_SECONDS,
    Cohort,
    Due,
    ExceededLimit,
    Group,
    Limits,
    Protection,
    may_exceed_fleet_limit,
)
from service_registry.sql import grace_seconds

OBSERVATION_GAP_SECONDS = 5.0

EventKind = Literal["expired", "protected", "recovered"]


@dataclass(slots=True)
class Lease:
    """The lease of one instance. `protected_at` is when the present protection began, or the last one."""

    service: int
    ttl_seconds: int
    heartbeat_at: float
    beats: int = 1
    expired_at: float | None = None
    protected_by: Rule | None = None
    protected_at: float = 0.0


class Registry:
    """Leases and the state of expiry. `events` are what the change log would record, in order."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.leases: list[Lease] = []
        self.window_started_at = float("-inf")
        self.observed_at = 0.0
        self.suspension = Suspension()
        self.exceeded_limits: Mapping[int, ExceededLimit] = {}
        self.events: list[tuple[float, EventKind, int, str]] = []
        self.window_restarts: Counter[str] = Counter()

    def register(self, now: float, service: int, ttl_seconds: int, beats: int = 0) -> int:
        self.leases.append(Lease(service, ttl_seconds, now, beats))
        return len(self.leases) - 1

    def heartbeat(self, now: float, key: int) -> None:
        lease = self.leases[key]
        if lease.expired_at is not None or lease.protected_by is not None:
            self.events.append((now, "recovered", key, ""))
        lease.heartbeat_at, lease.expired_at, lease.protected_by = now, None, None
        lease.beats += 1

    def pulse(self, now: float) -> None:
        if now - self.observed_at > OBSERVATION_GAP_SECONDS:
            self.window_started_at = now
            self.window_restarts["gap"] += 1
        self.observed_at = now

    def sweep(self, now: float) -> None:
        """Count, decide on all due leases in the order of their keys, and apply."""
        if now - self.observed_at > OBSERVATION_GAP_SECONDS:
            return
        before = self.suspension
        cohorts, due = self.count(now)
        activity = FleetActivity(now, cohorts, self.find_first_heartbeat())
        self.suspension = update_suspension(
            before, activity, self.count_live_services, self.limits.suspension_max_seconds
        )
        if before.started_at is not None and self.suspension.started_at is None:
            restart_at = before.find_window_restart(activity)
            if restart_at is not None:
                self.window_started_at = max(self.window_started_at, restart_at)
                self.window_restarts["suspension"] += 1
            cohorts, due = self.count(now)
        if self.suspension.is_active(now) or not (due or may_exceed_fleet_limit(cohorts, self.limits)):
            return
        protection = Protection(now, cohorts, self.count_groups(now), self.exceeded_limits, self.limits)
        self.exceeded_limits = protection.exceeded_limits
        for key in due:
            self.decide(now, key, protection)

    def decide(self, now: float, key: int, protection: Protection) -> None:
        lease = self.leases[key]
        overdue = now - self.renewed_at(lease) - grace_seconds(lease.ttl_seconds)
        protected = now - lease.protected_at if lease.protected_by else 0.0
        due = Due(lease.service, lease.ttl_seconds, overdue, lease.beats > 0, lease.protected_by, protected)
        decision = protection.decide(due)
        if decision.expires:
            lease.expired_at, lease.protected_by = now, None
            self.events.append((now, "expired", key, decision.action))
        elif decision.action == "protect":
            if lease.protected_by is None:
                self.events.append((now, "protected", key, str(decision.rule)))
                lease.protected_at = now
            lease.protected_by = decision.rule

    def renewed_at(self, lease: Lease) -> float:
        return max(lease.heartbeat_at, self.window_started_at)

    def find_first_heartbeat(self) -> float | None:
        """Return the first heartbeat of a proven lease since the suspension started."""
        started_at = self.suspension.started_at
        if started_at is None:
            return None
        since = (lease.heartbeat_at for lease in self.proven_live() if lease.heartbeat_at > started_at)
        return min(since, default=None)

    def proven_live(self) -> list[Lease]:
        return [lease for lease in self.leases if lease.beats and lease.expired_at is None]

    def count_live_services(self) -> int:
        return len({lease.service for lease in self.proven_live()})

    def count(self, now: float) -> tuple[list[Cohort], list[int]]:
        """Return the proven leases by TTL, and the keys of all due leases."""
        tallies: dict[int, CohortTally] = {}
        due: list[int] = []
        window, recent = self.window_started_at, now - RECENT_EXPIRY_SECONDS
        for key, lease in enumerate(self.leases):
            tally = tallies.get(lease.ttl_seconds)
            if tally is None:
                tally = tallies[lease.ttl_seconds] = CohortTally(lease.ttl_seconds)
            if lease.expired_at is not None:
                tally.expired += lease.beats > 0 and lease.expired_at > recent
                continue
            renewed_at = lease.heartbeat_at if lease.heartbeat_at > window else window
            unrenewed = now - renewed_at
            if unrenewed >= tally.grace:
                due.append(key)
            if lease.beats:
                tally.live += 1
                tally.late += unrenewed > tally.late_after
                tally.renewed_at = max(tally.renewed_at, renewed_at)
        return [tally.cohort() for tally in tallies.values() if tally.live or tally.expired], due

    def count_groups(self, now: float) -> list[Group]:
        """Return the proven leases, by TTL, of the services with late or recently expired leases."""
        size: Counter[tuple[int, int]] = Counter()
        counted: Counter[tuple[int, int]] = Counter()
        for lease in self.leases:
            live = lease.expired_at is None
            expired = lease.expired_at is not None and lease.expired_at > now - RECENT_EXPIRY_SECONDS
            if lease.beats and (live or expired):
                late = live and now - self.renewed_at(lease) > LATE_AFTER * lease.ttl_seconds
                size[lease.service, lease.ttl_seconds] += 1
                counted[lease.service, lease.ttl_seconds] += expired or late
        affected = {service for (service, _), number in counted.items() if number}
        return [Group(*key, number, counted[key]) for key, number in size.items() if key[0] in affected]


class CohortTally:
    """A cohort while it is counted."""

    def __init__(self, ttl_seconds: int) -> None:
        self.ttl_seconds = ttl_seconds
        self.late_after = LATE_AFTER * ttl_seconds
        self.grace = grace_seconds(ttl_seconds)
        self.live = self.late = self.expired = 0
        self.renewed_at = float("-inf")

    def cohort(self) -> Cohort:
        renewed_at = self.renewed_at if self.live else 0.0
        return Cohort(self.ttl_seconds, self.live, self.late, self.expired, renewed_at)
