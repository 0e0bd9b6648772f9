"""Predict what a sweep would do now, by its own counts and rules, without locks."""

from collections.abc import Iterator
from dataclasses import dataclass

from django.conf import settings
from django.db import connection

from service_registry.expiry.counts import FleetCount, count_fleet
from service_registry.expiry.due_leases import DueLease, read_due_leases
from service_registry.expiry.evidence import format_protection_end
from service_registry.expiry.fleet_suspension import Suspension
from service_registry.expiry.lease_decisions import LeaseDecisions, build_protection, decide_suspension
from service_registry.expiry.protection import Decision
from service_registry.expiry.purge import IS_PAST_RETENTION
from service_registry.expiry.timers import IS_OVER
from service_registry.sql import LEASE, OVERRIDE, STATE, rfc3339

PAGE = 500

READ_STATE = f"""
SELECT {rfc3339("r.observed_at")}, {rfc3339("GREATEST(r.window_started_at, to_timestamp(%(window_restart_at)s))")},
    CASE WHEN %(window_restart_at)s IS NULL THEN r.window_reason ELSE 'suspension' END, {rfc3339("r.swept_at")},
    {rfc3339("to_timestamp(%(suspended_at)s)")}, {rfc3339("to_timestamp(%(suspended_until)s)")},
    (SELECT count(*) FROM {LEASE} l WHERE {IS_PAST_RETENTION}),
    (SELECT count(*) FROM {OVERRIDE} o WHERE {IS_OVER})
FROM {STATE} r WHERE r.id = 1
"""


@dataclass(frozen=True, slots=True)
class Outlook:
    """The registry's state as the next sweep will find it.

    Times are texts by the database's clock. A suspension that a heartbeat has ended is over here, and the
    observation window restarts as the next sweep will restart it. While expiry does not run, the leases that are
    due stay as they are, and nothing is purged.
    """

    fleet: FleetCount
    suspension: Suspension
    observed_at: str
    window_started_at: str
    window_reason: str
    swept_at: str
    suspended_at: str | None
    suspended_until: str | None
    past_retention: int
    overrides_over: int

    @property
    def expiry_runs(self) -> bool:
        return self.fleet.is_observed and not self.suspension.is_active(self.fleet.now)


def read_outlook() -> Outlook:
    """Count as the sweep does. Writes nothing.

    The sweep counts anew when a heartbeat has ended a suspension.
    """
    fleet = count_fleet()
    suspension = decide_suspension(fleet) if fleet.is_observed else fleet.suspension
    window_restart_at = fleet.suspension.find_window_restart(fleet.activity) if fleet.is_observed else None
    if window_restart_at is not None:
        fleet = count_fleet(window_restart_at)
    parameters = {
        "suspended_at": suspension.started_at,
        "suspended_until": suspension.until,
        "window_restart_at": window_restart_at,
        "retention": settings.REGISTRY_RETENTION_SECONDS,
    }
    with connection.cursor() as cursor:
        cursor.execute(READ_STATE, parameters)
        return Outlook(fleet, suspension, *cursor.fetchone())


@dataclass(frozen=True, slots=True)
class Prediction:
    """An instance past its deadline, and the decision of the next sweep.

    It is None while expiry does not run.
    """

    lease: DueLease
    decision: Decision | None

    @property
    def expires(self) -> bool:
        return self.decision is not None and self.decision.expires

    def describe(self) -> str:
        """Describe what the next sweep would do with the instance.

        The text is the end of a sentence about it.
        """
        if self.decision is None:
            return "stays listed while nothing expires"
        if self.decision.expires:
            return "would expire"
        if self.decision.rule is None or self.decision.action == "wait":
            return "would wait, because enough protections end in one sweep"
        predicate = "is" if self.decision.action == "keep" else "would be"
        return f"{predicate} protected by the rule {self.decision.rule} until {self.protected_until}"

    @property
    def protected_until(self) -> str | None:
        rule = self.decision.rule if self.decision else None
        return format_protection_end(self.lease, rule) if rule else None


def predict(outlook: Outlook) -> Iterator[Prediction]:
    """Predict for all instances past their deadline, reading them in pages.

    They may be the whole fleet.
    """
    decisions = LeaseDecisions(outlook.fleet, build_protection(outlook.fleet))
    after = 0
    while leases := read_due_leases(outlook.fleet, after, PAGE):
        for lease in leases:
            yield Prediction(lease, decisions.decide(lease) if outlook.expiry_runs else None)
        after = leases[-1].pk
