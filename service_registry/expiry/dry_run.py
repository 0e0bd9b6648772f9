"""What a sweep would do now: by the sweep's own count and rules, and without a lock."""

from collections.abc import Iterator
from dataclasses import dataclass

from django.conf import settings
from django.db import connection

from service_registry.expiry import apply, counts, due_leases, evidence, silence
from service_registry.expiry.apply import Judging
from service_registry.expiry.conditions import IS_OVER, IS_OVER_RETENTION
from service_registry.expiry.counts import Census
from service_registry.expiry.due_leases import Candidate
from service_registry.expiry.rules import Silence, Verdict
from service_registry.sql import LEASE, OVERRIDE, STATE, rfc3339

PAGE = 500

OUTLOOK = f"""
SELECT {rfc3339("r.observed_at")}, {rfc3339("GREATEST(r.window_started_at, to_timestamp(%(restart_at)s))")},
    CASE WHEN %(restart_at)s IS NULL THEN r.window_reason ELSE 'suspension' END, {rfc3339("r.swept_at")},
    {rfc3339("to_timestamp(%(since)s)")}, {rfc3339("to_timestamp(%(until)s)")},
    (SELECT count(*) FROM {LEASE} l WHERE {IS_OVER_RETENTION}),
    (SELECT count(*) FROM {OVERRIDE} o WHERE {IS_OVER})
FROM {STATE} r WHERE r.id = 1
"""


@dataclass(frozen=True, slots=True)
class Outlook:
    """Times are texts by the database's clock. A silence that has ended is over here, and the window restarts as the
    next sweep will restart it. While time stands still, since nobody hears or the fleet is silent,
    those that are due stay, and so do those that have been retained enough."""

    counted: Census
    silence: Silence
    observed_at: str
    window_started_at: str
    window_reason: str
    swept_at: str
    suspended_at: str | None
    suspended_until: str | None
    retained_enough: int
    overrides_over: int

    @property
    def time_passes(self) -> bool:
        return self.counted.hears and not self.silence.stands_still(self.counted.now)


def outlook() -> Outlook:
    """Count as the sweep does, which counts anew when a heartbeat has ended a silence; nothing is written."""
    counted = counts.take()
    standing = silence.observe(counted) if counted.hears else counted.silence
    restart_at = counted.silence.restarts_window_at(counted.counts) if counted.hears else None
    if restart_at is not None:
        counted = counts.take(restart_at)
    parameters = {
        "since": standing.since,
        "until": standing.until,
        "restart_at": restart_at,
        "retention": settings.REGISTRY_RETENTION_SECONDS,
    }
    with connection.cursor() as cursor:
        cursor.execute(OUTLOOK, parameters)
        return Outlook(counted, standing, *cursor.fetchone())


@dataclass(frozen=True, slots=True)
class Prospect:
    """An instance past its deadline, and what would become of it. `verdict` is None while time stands still."""

    candidate: Candidate
    verdict: Verdict | None

    @property
    def leaves(self) -> bool:
        return self.verdict is not None and self.verdict.leaves

    @property
    def fate(self) -> str:
        if self.verdict is None:
            return "is kept while time stands still"
        if self.verdict.leaves:
            return "would expire"
        if self.verdict.rule is None or self.verdict.act == "wait":
            return "would wait, as enough leave in one sweep"
        until = evidence.until(self.candidate, self.verdict.rule)
        return (
            f"{'is' if self.verdict.act == 'held' else 'would be'} held by the rule {self.verdict.rule} until {until}"
        )


def prospects(outlook: Outlook) -> Iterator[Prospect]:
    """All that are past their deadline, a page at a time: there may be as many as there are instances."""
    judged = Judging(outlook.counted, apply.judgement(outlook.counted))
    after = 0
    while found := due_leases.look(outlook.counted, after, PAGE):
        for candidate in found:
            yield Prospect(candidate, judged.verdict(candidate) if outlook.time_passes else None)
        after = found[-1].pk
