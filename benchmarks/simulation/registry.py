"""A registry in memory. What it counts it counts as `service_registry.expiry.counts` does in SQL (a test compares the
two); what becomes of a lease `service_registry.expiry.rules` decides, as in the product."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from service_registry.choices import Rule
from service_registry.expiry import rules
from service_registry.expiry.rules import Cohort, Crowd, Due, Group, Judgement, Limits, Silence, grace_seconds

DEAF_AFTER_SECONDS = 5.0

Kind = Literal["expired", "protected", "recovered"]


@dataclass(slots=True)
class Lease:
    service: int
    ttl_seconds: int
    heartbeat_at: float
    beats: int = 1
    expired_at: float | None = None
    held_by: Rule | None = None
    # Of the hold by `held_by`, or of the last one.
    held_at: float = 0.0


class Registry:
    """Its sweeps, beats and pulses are called from outside; `events` are what its log would say, in order."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.leases: list[Lease] = []
        self.window_started_at = float("-inf")
        self.heard_at = 0.0
        self.silence = Silence()
        self.crowds: Mapping[int, Crowd] = {}
        self.events: list[tuple[float, Kind, int, str]] = []
        self.restarts: Counter[str] = Counter()

    def register(self, now: float, service: int, ttl_seconds: int, beats: int = 0) -> int:
        self.leases.append(Lease(service, ttl_seconds, now, beats))
        return len(self.leases) - 1

    def beat(self, now: float, key: int) -> None:
        lease = self.leases[key]
        if lease.expired_at is not None or lease.held_by is not None:
            self.events.append((now, "recovered", key, ""))
        lease.heartbeat_at, lease.expired_at, lease.held_by = now, None, None
        lease.beats += 1

    def pulse(self, now: float) -> None:
        if now - self.heard_at > DEAF_AFTER_SECONDS:
            self.window_started_at = now
            self.restarts["deaf"] += 1
        self.heard_at = now

    def sweep(self, now: float) -> None:
        """Count, judge all that are due in the order of their keys, and apply."""
        if now - self.heard_at > DEAF_AFTER_SECONDS:
            return
        before = self.silence
        cohorts, due = self.count(now)
        counts = rules.Counts(now, cohorts, self.beaten_at())
        self.silence = rules.observe(before, counts, self.live_services, self.limits)
        if before.since is not None and self.silence.since is None:
            restart_at = before.restarts_window_at(counts)
            if restart_at is not None:
                self.window_started_at = max(self.window_started_at, restart_at)
                self.restarts["silence"] += 1
            cohorts, due = self.count(now)
        if self.silence.stands_still(now) or not (due or rules.may_be_crowded(cohorts, self.limits)):
            return
        judgement = Judgement(now, cohorts, self.groups(now), self.crowds, self.limits)
        self.crowds = judgement.crowds
        for key in due:
            self.judge(now, key, judgement)

    def judge(self, now: float, key: int, judgement: Judgement) -> None:
        lease = self.leases[key]
        overdue = now - self.heard_since(lease) - grace_seconds(lease.ttl_seconds)
        held = now - lease.held_at if lease.held_by else 0.0
        due = Due(lease.service, lease.ttl_seconds, overdue, lease.beats > 0, lease.held_by, held)
        verdict = judgement.verdict(due)
        if verdict.leaves:
            lease.expired_at, lease.held_by = now, None
            self.events.append((now, "expired", key, verdict.act))
        elif verdict.act == "hold":
            if lease.held_by is None:
                self.events.append((now, "protected", key, str(verdict.rule)))
                lease.held_at = now
            lease.held_by = verdict.rule

    def heard_since(self, lease: Lease) -> float:
        return max(lease.heartbeat_at, self.window_started_at)

    def beaten_at(self) -> float | None:
        since = self.silence.since
        if since is None:
            return None
        beaten = (lease.heartbeat_at for lease in self.proven_live() if lease.heartbeat_at > since)
        return min(beaten, default=None)

    def proven_live(self) -> list[Lease]:
        return [lease for lease in self.leases if lease.beats and lease.expired_at is None]

    def live_services(self) -> int:
        return len({lease.service for lease in self.proven_live()})

    def count(self, now: float) -> tuple[list[Cohort], list[int]]:
        """The proven leases of the fleet by TTL, and the keys of all that are due."""
        tallies: dict[int, Tally] = {}
        due: list[int] = []
        window, gone_since = self.window_started_at, now - rules.GONE_SECONDS
        for key, lease in enumerate(self.leases):
            tally = tallies.get(lease.ttl_seconds)
            if tally is None:
                tally = tallies[lease.ttl_seconds] = Tally(lease.ttl_seconds)
            if lease.expired_at is not None:
                tally.gone += lease.beats > 0 and lease.expired_at > gone_since
                continue
            heard_at = lease.heartbeat_at if lease.heartbeat_at > window else window
            silent = now - heard_at
            if silent >= tally.grace:
                due.append(key)
            if lease.beats:
                tally.live += 1
                tally.late += silent > tally.late_after
                tally.heard_at = max(tally.heard_at, heard_at)
        return [tally.cohort() for tally in tallies.values() if tally.live or tally.gone], due

    def groups(self, now: float) -> list[Group]:
        """The proven leases, by TTL, of the services in which anybody is late or gone."""
        size: Counter[tuple[int, int]] = Counter()
        counted: Counter[tuple[int, int]] = Counter()
        for lease in self.leases:
            live = lease.expired_at is None
            gone = lease.expired_at is not None and lease.expired_at > now - rules.GONE_SECONDS
            if lease.beats and (live or gone):
                late = live and now - self.heard_since(lease) > rules.LATE_AFTER * lease.ttl_seconds
                size[lease.service, lease.ttl_seconds] += 1
                counted[lease.service, lease.ttl_seconds] += gone or late
        involved = {service for (service, _), number in counted.items() if number}
        return [Group(*key, number, counted[key]) for key, number in size.items() if key[0] in involved]


class Tally:
    """A cohort while it is counted."""

    def __init__(self, ttl_seconds: int) -> None:
        self.ttl_seconds = ttl_seconds
        self.late_after = rules.LATE_AFTER * ttl_seconds
        self.grace = grace_seconds(ttl_seconds)
        self.live = self.late = self.gone = 0
        self.heard_at = float("-inf")

    def cohort(self) -> Cohort:
        heard_at = self.heard_at if self.live else 0.0
        return Cohort(self.ttl_seconds, self.live, self.late, self.gone, heard_at)
