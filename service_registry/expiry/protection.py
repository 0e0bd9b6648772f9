"""Decide which due leases expire and which are protected.

No SQL, no clock, no settings. The sweep supplies the counts and applies the decisions; the simulation
(`benchmarks/simulation`) runs the same code in virtual time. All times are seconds on one clock. A lease is *proven*
when it has had a heartbeat since its epoch began. Unproven leases are neither counted nor protected.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from service_registry.choices import Rule
from service_registry.sql import grace_seconds

# A proven lease is late when it was not renewed for this share of its TTL. Clients send a heartbeat every third of the
# TTL: when the first lease of a cohort is due, the others are late already, and the cohort is counted whole. (0.65
# protects fleets with slow heartbeats; 0.80 lets live instances expire.)
LATE_AFTER = 0.7
# An expiry is counted for this long, unless the instance recovers.
RECENT_EXPIRY_SECONDS = 60
# In a fleet below this size the registry can hardly distinguish the end of the fleet from a fault on the way to it.
# Protection is short there.
SMALL_FLEET = 20
ALL_LATE_MINIMUM = 3
SERVICE_MINIMUM = 5
# The protections that may end in one sweep because their time is over: this number, or this share of the fleet.
ENDINGS_MINIMUM = 10
ENDINGS_FRACTION = 0.05


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits that operators set.

    Fractions are shares of the leases that a due lease is compared with.
    """

    suspension_max_seconds: int = 3600
    fleet_fraction: float = 0.15
    fleet_minimum: int = 5
    fleet_seconds: int = 900
    service_fraction: float = 0.5
    service_seconds: int = 120

    def seconds(self, rule: Rule) -> int:
        """Return how long `rule` protects at most, from the deadline.

        A restart of the observation window does not extend it. `service_seconds` serves SMALL_FLEET and
        ALL_LATE, too.
        """
        return self.fleet_seconds if rule == Rule.FLEET else self.service_seconds


@dataclass(frozen=True, slots=True)
class Cohort:
    """The proven leases of one TTL.

    `expired` counts the expiries of the last RECENT_EXPIRY_SECONDS. `renewed_at` is the latest renewal of a live lease:
    its last heartbeat, or the start of the observation window if that is later.
    """

    ttl_seconds: int
    live: int
    late: int
    expired: int
    renewed_at: float


@dataclass(frozen=True, slots=True)
class Group:
    """The proven leases of one TTL in one service: their number, and the counted ones.

    `size` counts those that are live or have recently expired, `counted` those that are late or have recently
    expired.
    """

    service: int
    ttl_seconds: int
    size: int
    counted: int


@dataclass(frozen=True, slots=True)
class RuleResult:
    """One rule, evaluated for the leases of one TTL and service.

    The rule protects them for `seconds` past their deadlines when more than `limit` are `counted`, or when the limit
    was exceeded earlier, while the lease in question was late.
    """

    rule: Rule
    counted: float
    limit: float
    seconds: int
    exceeded_earlier: bool = False

    @property
    def protects(self) -> bool:
        return self.counted > self.limit or self.exceeded_earlier


@dataclass(frozen=True, slots=True)
class ExceededLimit:
    """The last time a fleet rule's limit was exceeded, kept by TTL for the next sweep.

    A lease that was late at that time is protected when it becomes due, although fewer are counted by then: the
    instances whose heartbeats arrive first must not make the others expire.
    """

    rule: Rule
    exceeded_at: float

    def is_relevant(self, ttl_seconds: int, now: float) -> bool:
        """Return whether that is at most one grace period ago.

        A lease that was late at that time is due by then.
        """
        return now - grace_seconds(ttl_seconds) <= self.exceeded_at <= now


@dataclass(frozen=True, slots=True)
class Due:
    """A lease past its deadline by `overdue_seconds`.

    `protected_by` is the rule that protects it already, for `protected_seconds`; these are negative when the clock has
    been set back since.
    """

    service: int
    ttl_seconds: int
    overdue_seconds: float
    proven: bool
    protected_by: Rule | None = None
    protected_seconds: float = 0.0

    @property
    def elapsed_seconds(self) -> float:
        """The part of a protection's time that is over.

        A restart of the observation window moves the deadline, and does not extend a protection: otherwise a registry
        that restarts now and then would protect dead instances for ever.
        """
        return max(self.overdue_seconds, self.protected_seconds)


@dataclass(frozen=True, slots=True)
class Decision:
    """The action for a due lease, and the results of the rules that were evaluated.

    `expire`: no rule protects it, or an operator has `released` its service. `end_protection`: it expires, because the
    time of the rule that protects it is over. `protect`: it is protected from now on, by `rule`. `keep`: it stays
    protected. `wait`: its protection is over, but enough protections have ended in this sweep.
    """

    action: Literal["expire", "end_protection", "protect", "keep", "wait"]
    rule: Rule | None = None
    results: tuple[RuleResult, ...] = ()
    released: bool = False

    @property
    def expires(self) -> bool:
        return self.action in {"expire", "end_protection"}


class Protection:
    """The protection rules, applied to the counts of one sweep.

    Called for each lease that was due when the sweep counted.
    """

    def __init__(
        self,
        now: float,
        cohorts: Sequence[Cohort],
        groups: Sequence[Group],
        exceeded_before: Mapping[int, ExceededLimit],
        limits: Limits,
    ) -> None:
        """Evaluate the rules.

        Args:
            now: time of the count.
            cohorts: the whole fleet, one cohort for each TTL.
            groups: one for each service and TTL, of the services with late or recently expired leases.
            exceeded_before: `exceeded_limits` of the previous sweep, by TTL.
            limits: the limits that operators have set.
        """
        self.now = now
        self.limits = limits
        self.endings_left = max(ENDINGS_MINIMUM, int(ENDINGS_FRACTION * sum(cohort.live for cohort in cohorts)))
        self._fleet_results, self._service_results = evaluate_rules(cohorts, groups, limits)
        self.exceeded_limits = {
            ttl_seconds: exceeded
            for ttl_seconds in self._fleet_results
            if (exceeded := self._exceeded_now(ttl_seconds) or exceeded_before.get(ttl_seconds))
            and exceeded.is_relevant(ttl_seconds, now)
        }

    def _exceeded_now(self, ttl_seconds: int) -> ExceededLimit | None:
        protecting = find_longest(self._fleet_results[ttl_seconds])
        return ExceededLimit(protecting.rule, self.now) if protecting else None

    def decide(self, due: Due, released: bool = False) -> Decision:
        """Decide about one lease, compared with those of the same or a shorter TTL.

        Each protection that ends because its time is over takes one from `endings_left`.

        A protection ends by a heartbeat (then the lease is not due), by its time or by a release, and never because
        fewer leases are counted now. When its time is over, another rule may protect the lease for longer. Each rule's
        time counts from the lease's own deadline, as it was when the protection began.
        """
        if not due.proven or released:
            # An unproven lease expires in any case, so its evidence does not name the release.
            return Decision("expire", released=due.proven)
        if due.protected_by and due.elapsed_seconds < self.limits.seconds(due.protected_by):
            # A protection that began in the future begins anew, by the same rule.
            return Decision("protect" if due.protected_seconds < 0 else "keep", due.protected_by)
        results = self.evaluate(due)
        protecting = find_longest(results)
        if protecting and due.elapsed_seconds < protecting.seconds:
            return Decision("protect", protecting.rule, results)
        if protecting is None and due.protected_by is None:
            return Decision("expire", None, results)
        if self.endings_left < 1:
            return Decision("wait", due.protected_by, results)
        self.endings_left -= 1
        return Decision("end_protection", due.protected_by, results)

    def evaluate(self, due: Due) -> tuple[RuleResult, ...]:
        """Return the results of the fleet's and of the service's rules for one due lease."""
        exceeded = self.exceeded_limits.get(due.ttl_seconds)
        rule_before = exceeded.rule if exceeded and self._was_late(due, exceeded.exceeded_at) else None
        fleet_results = (
            replace(result, exceeded_earlier=True) if result.rule == rule_before else result
            for result in self._fleet_results.get(due.ttl_seconds, ())
        )
        service_result = self._service_results.get((due.service, due.ttl_seconds))
        return (*fleet_results, service_result) if service_result else tuple(fleet_results)

    def _was_late(self, due: Due, at: float) -> bool:
        unrenewed_seconds = due.overdue_seconds + grace_seconds(due.ttl_seconds)
        return unrenewed_seconds - (self.now - at) > LATE_AFTER * due.ttl_seconds


def find_longest(results: Iterable[RuleResult]) -> RuleResult | None:
    """Return the result that protects longest, or None when no rule protects."""
    return max((result for result in results if result.protects), key=lambda result: result.seconds, default=None)


def may_exceed_fleet_limit(cohorts: Sequence[Cohort], limits: Limits) -> bool:
    """Return whether a fleet rule might protect, before services are counted.

    Counting the services can only lower the count.
    """
    counts = RunningCounts()
    for cohort in sorted(cohorts, key=lambda cohort: cohort.ttl_seconds):
        counts.add_cohort(cohort)
        if find_longest(evaluate_fleet_rules(counts, limits)):
            return True
    return False


class RunningCounts:
    """The counts of all leases up to a TTL.

    Cohorts and groups are added in the order of their TTL.
    """

    def __init__(self) -> None:
        self.live = self.late = self.counted = 0
        self.service_size: Counter[int] = Counter()
        self.service_counted: Counter[int] = Counter()
        self._large_services: set[int] = set()

    def add_cohort(self, cohort: Cohort) -> None:
        self.live += cohort.live
        self.late += cohort.late
        self.counted += cohort.late + cohort.expired

    def add_group(self, group: Group) -> None:
        self.service_size[group.service] += group.size
        self.service_counted[group.service] += group.counted
        self._large_services.add(group.service)

    def count_capped(self, limit: float) -> float:
        """Return the fleet's count, with what each service adds to it capped.

        A service counts for at most half of `limit` or half of its leases, whichever is more. `limit` only grows,
        so a service that is below its cap need not be looked at again.
        """
        cap = limit / 2
        self._large_services = {service for service in self._large_services if self.service_counted[service] > cap}
        excesses = (
            self.service_counted[service] - max(cap, self.service_size[service] / 2) for service in self._large_services
        )
        return self.counted - sum(excess for excess in excesses if excess > 0)


def evaluate_rules(
    cohorts: Sequence[Cohort], groups: Sequence[Group], limits: Limits
) -> tuple[dict[int, tuple[RuleResult, ...]], dict[tuple[int, int], RuleResult]]:
    """Evaluate all rules: the fleet's by TTL, the services' by service and TTL."""
    counts = RunningCounts()
    fleet_results: dict[int, tuple[RuleResult, ...]] = {}
    service_results: dict[tuple[int, int], RuleResult] = {}
    remaining = sorted(groups, key=lambda group: group.ttl_seconds, reverse=True)
    for cohort in sorted(cohorts, key=lambda cohort: cohort.ttl_seconds):
        counts.add_cohort(cohort)
        while remaining and remaining[-1].ttl_seconds <= cohort.ttl_seconds:
            group = remaining.pop()
            counts.add_group(group)
            service_results[group.service, group.ttl_seconds] = evaluate_service_rule(counts, group.service, limits)
        fleet_results[cohort.ttl_seconds] = evaluate_fleet_rules(counts, limits)
    return fleet_results, service_results


def evaluate_fleet_rules(counts: RunningCounts, limits: Limits) -> tuple[RuleResult, ...]:
    """Evaluate the fleet's rules for the leases that have been counted so far."""
    limit = max(limits.fleet_minimum, limits.fleet_fraction * counts.live)
    rule = Rule.FLEET if counts.live >= SMALL_FLEET else Rule.SMALL_FLEET
    fleet = RuleResult(rule, counts.count_capped(limit), limit, limits.seconds(rule))
    if counts.live < ALL_LATE_MINIMUM:
        return (fleet,)
    # More than all but one are late: all are.
    return fleet, RuleResult(Rule.ALL_LATE, counts.late, counts.live - 1, limits.seconds(Rule.ALL_LATE))


def evaluate_service_rule(counts: RunningCounts, service: int, limits: Limits) -> RuleResult:
    """Evaluate the rule for one service.

    A service below SERVICE_MINIMUM gets a limit that it cannot exceed.
    """
    size = counts.service_size[service]
    limit = limits.service_fraction * size if size >= SERVICE_MINIMUM else size
    return RuleResult(Rule.SERVICE, counts.service_counted[service], limit, limits.seconds(Rule.SERVICE))
