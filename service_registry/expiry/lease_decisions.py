"""Expire or protect the leases that are due, and suspend or resume expiry."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from django.db import connection, transaction

from service_registry import changelog, metrics
from service_registry.expiry import evidence
from service_registry.expiry.counts import FleetCount, configured_limits, count_groups, count_services
from service_registry.expiry.due_leases import DueLease, lock_due_leases
from service_registry.expiry.fleet_suspension import Suspension, update_suspension
from service_registry.expiry.protection import Decision, Protection, may_exceed_fleet_limit
from service_registry.sql import LEASE, STATE

logger = logging.getLogger(__name__)

START_SUSPENSION = f"""
-- Locks the state's row. Of two sweeps that see the fleet quiet at once the first one's time is kept.
UPDATE {STATE} SET suspended_at = to_timestamp(%s), suspended_until = to_timestamp(%s)
WHERE id = 1 AND suspended_at IS NULL
"""

END_SUSPENSION = f"""
-- Locks the state's row. Of two sweeps that see the heartbeat the first restarts the window.
UPDATE {STATE}
SET suspended_at = NULL, suspended_until = NULL, suspension_budget_full_at = to_timestamp(%(budget_full_at)s),
    window_started_at = GREATEST(window_started_at, to_timestamp(%(window_restart_at)s)),
    window_reason = CASE WHEN %(window_restart_at)s IS NULL THEN window_reason ELSE 'suspension' END
WHERE id = 1 AND suspended_at IS NOT NULL
"""


def decide_suspension(fleet: FleetCount) -> Suspension:
    """Return the suspension as `fleet` shows it. Writes nothing."""
    return update_suspension(
        fleet.suspension, fleet.activity, count_services, configured_limits().suspension_max_seconds
    )


def apply_suspension(fleet: FleetCount) -> Suspension:
    """Store a suspension that starts or ends.

    The heartbeat that ends one restarts the observation window.
    """
    before, after = fleet.suspension, decide_suspension(fleet)
    with connection.cursor() as cursor:
        if before.started_at is None and after.started_at is not None:
            cursor.execute(START_SUSPENSION, [after.started_at, after.until])
            logger.warning("Expiry is suspended: no heartbeat arrives from the whole fleet.")
        elif before.started_at is not None and after.started_at is None:
            restart_at = before.find_window_restart(fleet.activity)
            cursor.execute(END_SUSPENSION, {"budget_full_at": after.budget_full_at, "window_restart_at": restart_at})
            if cursor.rowcount and restart_at is not None:
                transaction.on_commit(lambda: metrics.count_window_restart("suspension"))
    return after


STORE_EXCEEDED_LIMITS = f"""
-- Locks the state's row. No other sweep writes this: the caller's transaction has the sweep's lock.
UPDATE {STATE} SET exceeded_limits = %s WHERE id = 1
"""


def build_protection(fleet: FleetCount) -> Protection:
    """Evaluate the protection rules for `fleet`.

    Services are counted only when a decision depends on them.
    """
    limits = configured_limits()
    depends = fleet.needs_decisions or may_exceed_fleet_limit(fleet.cohorts, limits)
    groups = count_groups(fleet) if depends else []
    return Protection(fleet.now, fleet.cohorts, groups, fleet.exceeded_limits, limits)


def store_exceeded_limits(fleet: FleetCount, protection: Protection) -> None:
    """Store for the next sweep which limits of the fleet were exceeded lately."""
    if protection.exceeded_limits != fleet.exceeded_limits:
        exceeded = {
            ttl_seconds: [limit.rule, limit.exceeded_at] for ttl_seconds, limit in protection.exceeded_limits.items()
        }
        with connection.cursor() as cursor:
            cursor.execute(STORE_EXCEEDED_LIMITS, [json.dumps(exceeded)])


@dataclass(slots=True)
class LeaseDecisions:
    """One sweep's decisions on the leases that were due when it counted, page by page.

    `after` is the key of the last lease of the page before.
    """

    fleet: FleetCount
    protection: Protection
    after: int = 0
    expired: int = 0
    protected: int = 0

    def decide(self, lease: DueLease) -> Decision:
        return self.protection.decide(lease.due, lease.due.service in self.fleet.released_services)

    def apply_page(self, at_most: int) -> int:
        """Decide on a page of due leases, and return how many it had.

        1. Lock them, with the whole condition repeated: a lease that was renewed since the count is not among them.
        2. Decide on each by its row as locked, which cannot change until the commit.
        3. Expire or protect it, and append the changes.
        """
        leases = lock_due_leases(self.fleet, self.after, at_most, self.protection.endings_left > 0)
        decided = [(lease, self.decide(lease)) for lease in leases]
        expired = [(lease, decision) for lease, decision in decided if decision.expires]
        protected = [(lease, decision) for lease, decision in decided if decision.action == "protect"]
        # A lease that a further rule protects has its change already.
        newly_protected = [(lease, decision) for lease, decision in protected if lease.due.protected_by is None]
        expire_leases([lease for lease, _ in expired])
        protect_leases(protected)
        changelog.append_changes(
            [
                *(evidence.build_expired_change(*each) for each in expired),
                *(evidence.build_protected_change(*each) for each in newly_protected),
            ]
        )
        metrics.count_protections(str(decision.rule) for _, decision in newly_protected)
        self.after = leases[-1].pk if leases else self.after
        self.expired += len(expired)
        self.protected += len(newly_protected)
        return len(leases)


EXPIRE = f"""
-- Locks nothing new: the leases are locked, and were decided on by their rows as they are.
UPDATE {LEASE} SET expired_at = statement_timestamp(), protected_at = NULL WHERE instance_id = ANY (%s::bigint[])
"""
PROTECT = f"""
-- Locks nothing new: the leases are locked, and were decided on by their rows as they are.
-- A protection by a further rule counts from the first; LEAST ignores a NULL, and corrects a time in the future.
UPDATE {LEASE} l SET protected_at = LEAST(l.protected_at, statement_timestamp()), protected_by = decided.rule
FROM unnest(%s::bigint[], %s::text[]) AS decided(pk, rule) WHERE l.instance_id = decided.pk
"""


def expire_leases(leases: Sequence[DueLease]) -> None:
    if leases:
        with connection.cursor() as cursor:
            cursor.execute(EXPIRE, [[lease.pk for lease in leases]])


def protect_leases(protected: Sequence[tuple[DueLease, Decision]]) -> None:
    if protected:
        pks, rules = [lease.pk for lease, _ in protected], [decision.rule for _, decision in protected]
        with connection.cursor() as cursor:
            cursor.execute(PROTECT, [pks, rules])
