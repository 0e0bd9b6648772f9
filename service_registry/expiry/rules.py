"""The rules by which a lease that is due expires or is held. Plain numbers: no clock, no settings, no database.

The sweep gathers the numbers and applies the outcome; the simulation (`benchmarks/simulation`) drives the same code in
virtual time. Times are seconds on any one clock. A *proven* lease has had a heartbeat since its epoch began; others
are neither counted nor held.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from service_registry.choices import Rule

# A proven lease is late when not heard for this share of its TTL. Clients beat every third of it, so when the first of
# a cohort is due the others are late already, and the cohort is counted whole. (0.65 holds fleets that beat slowly.)
LATE_AFTER = 0.7
# An expiry counts for so long, unless the instance is heard of again.
GONE_SECONDS = 60
# Of a fleet that beats every third of its TTL, none is due yet when all have been silent for this share.
SILENT_AFTER = 2 / 3
SILENCE_MINIMUM = 20
SILENCE_SERVICES = 3
# What is owed for silences is never more than one may last; so far it may be off by the ways that times are kept.
ROUNDING_SECONDS = 1.0
# Among fewer than these the registry can hardly tell their end from a fault on the way to it: short holds only.
SMALL_FLEET = 20
SMALL_MINIMUM = 3
SERVICE_MINIMUM = 5
# How many may leave in one sweep whose hold is over.
LET_GO_MINIMUM = 10
LET_GO_FRACTION = 0.05


def grace_seconds(ttl_seconds: int) -> float:
    """How long nothing must have been heard of a lease until it is due."""
    return max(1.1 * ttl_seconds, ttl_seconds + 1.0)


@dataclass(frozen=True, slots=True)
class Limits:
    """What operators may set. Fractions are of the leases a due one is judged among."""

    silence_max_seconds: int = 3600
    fleet_fraction: float = 0.15
    fleet_minimum: int = 5
    fleet_seconds: int = 900
    service_fraction: float = 0.5
    service_seconds: int = 120

    def seconds(self, rule: Rule) -> int:
        """How long past a lease's deadline `rule` holds it, if the window does not restart meanwhile."""
        return self.fleet_seconds if rule == Rule.FLEET else self.service_seconds


@dataclass(frozen=True, slots=True)
class Cohort:
    """The proven leases of one TTL. `gone` have expired within GONE_SECONDS; `heard_at` is the latest moment from
    which the silence of a live one counts."""

    ttl_seconds: int
    live: int
    late: int
    gone: int
    heard_at: float


@dataclass(frozen=True, slots=True)
class Group:
    """The proven leases of one TTL in one service: `size` are live or gone, `counted` late or gone."""

    service: int
    ttl_seconds: int
    size: int
    counted: int


# --- Silence --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Silence:
    """While the whole fleet is silent time stands still, from `since` until `until` at most.

    What stood still has to be made up for: until `repaid_at` the registry has not heard for as long as it was silent
    before. So a fleet whose silences follow each other without end is held for `silence_max_seconds` once, and then
    half of the time at most.
    """

    since: float | None = None
    until: float | None = None
    repaid_at: float | None = None

    def stands_still(self, now: float) -> bool:
        return self.since is not None and self.until is not None and self.since <= now < self.until

    def restarts_window_at(self, counts: "Counts") -> float | None:
        """The heartbeat from which silence counts anew, if it came while time stood still. After that it restarts
        nothing: else silences without end would keep everybody."""
        beaten_at = counts.beaten_at
        return beaten_at if beaten_at is not None and self.stands_still(beaten_at) else None


@dataclass(frozen=True, slots=True)
class Counts:
    """What silence is seen by: the fleet at one moment, and the first heartbeat of a proven lease since a silence that
    stands began, if there was one."""

    now: float
    cohorts: Sequence[Cohort]
    beaten_at: float | None


def may_be_silent(now: float, cohorts: Sequence[Cohort]) -> bool:
    """Whether nobody of a fleet that is large enough was heard for two thirds of its median TTL. Whether its services
    are enough as well (SILENCE_SERVICES) is asked only then, since it is dear to count."""
    if sum(cohort.live for cohort in cohorts) < SILENCE_MINIMUM:
        return False
    return now - last_heard(cohorts) > SILENT_AFTER * median_ttl(cohorts)


def last_heard(cohorts: Sequence[Cohort]) -> float:
    """Of the live, of whom there is at least one."""
    return max(cohort.heard_at for cohort in cohorts if cohort.live)


def median_ttl(cohorts: Sequence[Cohort]) -> int:
    """Of the live, of whom there is at least one."""
    live = sum(cohort.live for cohort in cohorts)
    passed = 0
    for cohort in sorted(cohorts, key=lambda cohort: cohort.ttl_seconds):
        passed += cohort.live
        if 2 * passed >= live:
            return cohort.ttl_seconds
    raise ValueError("nobody is live")


def observe(standing: Silence, counts: Counts, count_services: Callable[[], int], limits: Limits) -> Silence:
    """How the silence stands by `counts`.

    It begins when the last of the fleet was heard, and ends with the first heartbeat since: not when somebody happens
    to look, so that a late sweep changes nothing. `count_services` says how many services have a proven live lease;
    it is asked only when all else speaks for silence.
    """
    if standing.since is not None:
        if standing.since > counts.now:  # a clock has been set back since: nothing stood still that could be told
            return Silence()
        return standing if counts.beaten_at is None else end_silence(standing, counts.beaten_at)
    if may_be_silent(counts.now, counts.cohorts) and count_services() >= SILENCE_SERVICES:
        return begin_silence(standing, last_heard(counts.cohorts), limits)
    return standing


def begin_silence(standing: Silence, heard_at: float, limits: Limits) -> Silence:
    """A silence that began when the last of the fleet was heard."""
    owed = max((standing.repaid_at or heard_at) - heard_at, 0.0)
    if owed > limits.silence_max_seconds + ROUNDING_SECONDS:  # more than can be: a clock has been set back since
        return Silence(heard_at, heard_at + limits.silence_max_seconds)
    left = max(limits.silence_max_seconds - owed, 0.0)
    return Silence(heard_at, heard_at + left, standing.repaid_at)


def end_silence(standing: Silence, beaten_at: float) -> Silence:
    """The silence is over by the first heartbeat."""
    assert standing.since is not None, "only a silence that has begun ends"
    assert standing.until is not None, "only a silence that has begun ends"
    stood_still = max(min(beaten_at, standing.until) - standing.since, 0.0)
    return Silence(repaid_at=max(standing.repaid_at or standing.since, standing.since) + 2 * stood_still)


# --- Protection -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule, looked at for the leases of one TTL and service: it holds them, for so many seconds past the deadline
    of each, when more are `counted` than its `limit`, or were `before` when the lease in question was late already."""

    rule: Rule
    counted: float
    limit: float
    seconds: int
    before: bool = False

    @property
    def holds(self) -> bool:
        return self.counted > self.limit or self.before


@dataclass(frozen=True, slots=True)
class Crowd:
    """When the leases up to some TTL last were too many for a `rule` of the whole fleet.

    Who was late then is held once due, although fewer are counted by that time: those who are heard again first must
    not make the others expire.
    """

    rule: Rule
    seen_at: float


@dataclass(frozen=True, slots=True)
class Due:
    """A lease past its deadline, by `overdue_seconds`. `held_by` is the rule that holds it already, for `held_seconds`:
    below zero when the clock has been set back since."""

    service: int
    ttl_seconds: int
    overdue_seconds: float
    proven: bool
    held_by: Rule | None = None
    held_seconds: float = 0.0

    @property
    def spent_seconds(self) -> float:
        """How much of a hold's time is over. A window that restarted since it was given has moved the deadline, and
        does not give its time again: else a registry that restarts now and then would hold the dead for ever."""
        return max(self.overdue_seconds, self.held_seconds)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a due lease, and the rules that were looked at for it.

    `expire`: no rule holds it, or an operator has `released` its service. `let_go`: a rule holds it, or did, and the
    time of that is over. `hold`: from now on, by `rule`. `held`: still. `wait`: its time is over too, but enough have
    left in this sweep.
    """

    act: Literal["expire", "let_go", "hold", "held", "wait"]
    rule: Rule | None = None
    findings: tuple[Finding, ...] = ()
    released: bool = False

    @property
    def leaves(self) -> bool:
        return self.act in {"expire", "let_go"}


class Judgement:
    """One sweep's: made of what was counted at its beginning, and asked for each lease that was due by then."""

    def __init__(
        self,
        now: float,
        cohorts: Sequence[Cohort],
        groups: Sequence[Group],
        before: Mapping[int, Crowd],
        limits: Limits,
    ) -> None:
        """
        Args:
            now: the moment of the count.
            cohorts: all of the fleet, one a TTL.
            groups: those of the services in which anybody is late or gone, one a service and TTL.
            before: the crowds of the judgement before, by TTL.
            limits: what operators have set.
        """
        self.now = now
        self.limits = limits
        self.may_let_go = max(LET_GO_MINIMUM, int(LET_GO_FRACTION * sum(cohort.live for cohort in cohorts)))
        self._of_fleet, self._of_service = look(cohorts, groups, limits)
        self.crowds = {
            ttl_seconds: crowd
            for ttl_seconds in self._of_fleet
            if (crowd := self._crowd(ttl_seconds) or before.get(ttl_seconds)) and matters(crowd, ttl_seconds, now)
        }

    def _crowd(self, ttl_seconds: int) -> Crowd | None:
        holding = longest(self._of_fleet[ttl_seconds])
        return Crowd(holding.rule, self.now) if holding else None

    def verdict(self, due: Due, released: bool = False) -> Verdict:
        """Judge one lease, among those whose TTL is not longer than its own. `may_let_go` falls with each let go.

        A hold ends by a heartbeat (then the lease is not due), by its own time or by a release, and never because
        fewer are counted now. When it ends, another rule may hold on whose time is longer; each counts from the
        lease's own deadline, as that was when the hold was given.
        """
        if not due.proven or released:
            # An unproven one would have gone without the release.
            return Verdict("expire", released=due.proven)
        if due.held_by and due.spent_seconds < self.limits.seconds(due.held_by):
            # One of a time to come is given anew, by the same rule.
            return Verdict("hold" if due.held_seconds < 0 else "held", due.held_by)
        looked_at = self.findings(due)
        holding = longest(looked_at)
        if holding and due.spent_seconds < holding.seconds:
            return Verdict("hold", holding.rule, looked_at)
        if holding is None and due.held_by is None:
            return Verdict("expire", None, looked_at)
        if self.may_let_go < 1:
            return Verdict("wait", due.held_by, looked_at)
        self.may_let_go -= 1
        return Verdict("let_go", due.held_by, looked_at)

    def findings(self, due: Due) -> tuple[Finding, ...]:
        """What is found of the leases that this one is judged among, by the fleet's rules and by its service's."""
        crowd = self.crowds.get(due.ttl_seconds)
        rule_before = crowd.rule if crowd and self.was_late(due, crowd.seen_at) else None
        of_fleet = (
            replace(finding, before=True) if finding.rule == rule_before else finding
            for finding in self._of_fleet.get(due.ttl_seconds, ())
        )
        of_service = self._of_service.get((due.service, due.ttl_seconds))
        return (*of_fleet, of_service) if of_service else tuple(of_fleet)

    def was_late(self, due: Due, moment: float) -> bool:
        silent_seconds = due.overdue_seconds + grace_seconds(due.ttl_seconds)
        return silent_seconds - (self.now - moment) > LATE_AFTER * due.ttl_seconds


def longest(findings: Iterable[Finding]) -> Finding | None:
    """Of those that hold, the one that does so longest."""
    return max((finding for finding in findings if finding.holds), key=lambda finding: finding.seconds, default=None)


def matters(crowd: Crowd, ttl_seconds: int, now: float) -> bool:
    """Whether anybody who was late then can have become due only now."""
    return now - grace_seconds(ttl_seconds) <= crowd.seen_at <= now


def may_be_crowded(cohorts: Sequence[Cohort], limits: Limits) -> bool:
    """Whether a rule of the fleet may hold, among the leases up to any TTL: services are counted only then."""
    counted = Counted()
    for cohort in sorted(cohorts, key=lambda cohort: cohort.ttl_seconds):
        counted.add_cohort(cohort)
        if longest(fleet_findings(counted, limits)):
            return True
    return False


class Counted:
    """What is counted among the leases up to a TTL, while that TTL grows."""

    def __init__(self) -> None:
        self.live = self.late = self.counted = 0
        self.size: Counter[int] = Counter()
        self.of_service: Counter[int] = Counter()
        self._heavy: set[int] = set()

    def add_cohort(self, cohort: Cohort) -> None:
        self.live += cohort.live
        self.late += cohort.late
        self.counted += cohort.late + cohort.gone

    def add_group(self, group: Group) -> None:
        self.size[group.service] += group.size
        self.of_service[group.service] += group.counted
        self._heavy.add(group.service)

    def capped(self, limit: float) -> float:
        """How many are counted when one service counts for at most half of `limit` or half of its own leases, whichever
        is more. The limit only grows, so a service that is too small to be cut need not be looked at again."""
        share = limit / 2
        self._heavy = {service for service in self._heavy if self.of_service[service] > share}
        cut = (self.of_service[service] - max(share, self.size[service] / 2) for service in self._heavy)
        return self.counted - sum(excess for excess in cut if excess > 0)


def look(
    cohorts: Sequence[Cohort], groups: Sequence[Group], limits: Limits
) -> tuple[dict[int, tuple[Finding, ...]], dict[tuple[int, int], Finding]]:
    """What each rule finds: for the fleet by TTL, and for services by service and TTL."""
    counted = Counted()
    of_fleet: dict[int, tuple[Finding, ...]] = {}
    of_service: dict[tuple[int, int], Finding] = {}
    waiting = sorted(groups, key=lambda group: group.ttl_seconds, reverse=True)
    for cohort in sorted(cohorts, key=lambda cohort: cohort.ttl_seconds):
        counted.add_cohort(cohort)
        while waiting and waiting[-1].ttl_seconds <= cohort.ttl_seconds:
            group = waiting.pop()
            counted.add_group(group)
            of_service[group.service, group.ttl_seconds] = service_finding(counted, group.service, limits)
        of_fleet[cohort.ttl_seconds] = fleet_findings(counted, limits)
    return of_fleet, of_service


def fleet_findings(counted: Counted, limits: Limits) -> tuple[Finding, ...]:
    limit = max(limits.fleet_minimum, limits.fleet_fraction * counted.live)
    rule = Rule.FLEET if counted.live >= SMALL_FLEET else Rule.SMALL_FLEET
    fleet = Finding(rule, counted.capped(limit), limit, limits.seconds(rule))
    if counted.live < SMALL_MINIMUM:
        return (fleet,)
    # Held when all are late: when more are than all but one.
    return fleet, Finding(Rule.ALL_LATE, counted.late, counted.live - 1, limits.seconds(Rule.ALL_LATE))


def service_finding(counted: Counted, service: int, limits: Limits) -> Finding:
    """A service too small for the rule has a limit that it cannot pass."""
    size = counted.size[service]
    limit = limits.service_fraction * size if size >= SERVICE_MINIMUM else size
    return Finding(Rule.SERVICE, counted.of_service[service], limit, limits.seconds(Rule.SERVICE))
