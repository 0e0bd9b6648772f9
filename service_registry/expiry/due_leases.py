"""Find the leases past their deadline, in pages: locked for a sweep, or only read.

The pages follow the keys.
"""

from dataclasses import dataclass
from datetime import datetime

from django.db import connection

from service_registry.expiry.counts import (
    IS_DUE,
    IS_PROTECTED,
    IS_PROVEN,
    PROTECTED_FROM,
    STATE_WITH_RESTART,
    FleetCount,
    epoch,
)
from service_registry.expiry.observation_window import EXPIRY_RUNS
from service_registry.expiry.protection import Due
from service_registry.sql import DEADLINE, INSTANCE, LEASE, SERVICE

# No lease is decided by a count this old: the sweep that counted was frozen, or has so much to do that it counts anew.
# Nor by a count in the future, since the clock has been set back: all leases would be due by it.
COUNT_IS_VALID_SECONDS = 5

DUE = f"""
SELECT l.instance_id, l.heartbeat_at, l.ttl_seconds, {DEADLINE} AS deadline, r.window_started_at,
    {epoch("%(at)s::timestamptz")} - {epoch(DEADLINE)} AS overdue_seconds, {IS_PROVEN} AS proven,
    CASE WHEN l.protected_at IS NOT NULL THEN l.protected_by END AS protected_by,
    COALESCE({epoch("%(at)s::timestamptz")} - {epoch("l.protected_at")}, 0) AS protected_seconds,
    {PROTECTED_FROM} AS protected_from
FROM {LEASE} l CROSS JOIN {STATE_WITH_RESTART} r
WHERE {IS_DUE} AND l.instance_id > %(after)s
"""
IS_RELEASED = (
    f"l.instance_id IN (SELECT i.id FROM {INSTANCE} i WHERE i.service_id = ANY (%(released_services)s::bigint[]))"
)
# Leases whose protection is over are not even locked when enough protections have ended in this sweep.
UNDECIDED = f"""
    AND {EXPIRY_RUNS}
    AND statement_timestamp() BETWEEN %(at)s AND %(at)s + interval '{COUNT_IS_VALID_SECONDS} seconds'
    AND (l.protected_at IS NULL OR (%(may_end_protection)s AND NOT {IS_PROTECTED}) OR {IS_RELEASED})
"""
PAGE = "ORDER BY l.instance_id LIMIT %(at_most)s"
WITH_NAMES = f"""
SELECT i.id, i.service_id, due.ttl_seconds, due.overdue_seconds, due.proven, due.protected_by,
    due.protected_seconds, s.namespace, s.name, i.instance_id, due.heartbeat_at, due.deadline, due.protected_from,
    due.window_started_at, statement_timestamp()
FROM due
JOIN {INSTANCE} i ON i.id = due.instance_id
JOIN {SERVICE} s ON s.id = i.service_id
ORDER BY i.id
"""
LOCK = f"""
-- Locks due leases, in the order of their keys, and finds each to be due by its row as locked. A lease that is being
-- renewed or registered is skipped.
WITH due AS MATERIALIZED ({DUE} {UNDECIDED} {PAGE} FOR NO KEY UPDATE OF l SKIP LOCKED)
{WITH_NAMES}
"""
READ = f"""
-- Locks nothing.
WITH due AS MATERIALIZED ({DUE} {PAGE})
{WITH_NAMES}
"""


@dataclass(frozen=True, slots=True)
class DueLease:
    """A lease past its deadline, its instance, and the facts that made it due.

    The time of a protection counts from `protected_from`.
    """

    pk: int
    due: Due
    namespace: str
    service_name: str
    instance_id: str
    heartbeat_at: datetime
    deadline: datetime
    protected_from: datetime
    window_started_at: datetime
    swept_at: datetime


def lock_due_leases(fleet: FleetCount, after: int, at_most: int, may_end_protection: bool) -> list[DueLease]:
    """Lock the due leases that need a decision.

    Finds none when expiry does not run, or `fleet` is too old. Args: fleet: leases are due that were due at its
    moment. after: the key behind which the page begins. at_most: leases in the page. may_end_protection: whether to
    include leases whose protection is over.
    """
    return query_due_leases(LOCK, fleet, after, at_most, may_end_protection)


def read_due_leases(fleet: FleetCount, after: int, at_most: int) -> list[DueLease]:
    """Read all leases past their deadline, also protected ones, without locking them."""
    return query_due_leases(READ, fleet, after, at_most, may_end_protection=True)


def query_due_leases(
    query: str, fleet: FleetCount, after: int, at_most: int, may_end_protection: bool
) -> list[DueLease]:
    parameters = {
        **fleet.parameters(),
        "after": after,
        "at_most": at_most,
        "may_end_protection": may_end_protection,
        "released_services": sorted(fleet.released_services),
    }
    with connection.cursor() as cursor:
        cursor.execute(query, parameters)
        return [DueLease(row[0], Due(*row[1:7]), *row[7:]) for row in cursor.fetchall()]
