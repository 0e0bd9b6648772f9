"""The leases past their deadline: found in pages by their keys, and locked or only looked at."""

from dataclasses import dataclass
from datetime import datetime

from django.db import connection

from service_registry.expiry.conditions import HELD_FROM, IS_DUE, IS_HELD, IS_PROVEN, STATE_AS_OF, TIME_PASSES
from service_registry.expiry.counts import Census, epoch
from service_registry.expiry.rules import Due
from service_registry.sql import DEADLINE, INSTANCE, LEASE, SERVICE

# A census this old judges nobody any more: the sweep that took it was frozen, or has so much to do that it counts anew.
# Nor does one of a time to come, since the clock has been set back: all would be due by it.
CENSUS_SECONDS = 5

DUE = f"""
SELECT l.instance_id, l.heartbeat_at, l.ttl_seconds, {DEADLINE} AS deadline, r.window_started_at,
    {epoch("%(at)s::timestamptz")} - {epoch(DEADLINE)} AS overdue, {IS_PROVEN} AS proven,
    CASE WHEN l.protected_at IS NOT NULL THEN l.protected_by END AS held_by,
    COALESCE({epoch("%(at)s::timestamptz")} - {epoch("l.protected_at")}, 0) AS held_seconds,
    {HELD_FROM} AS held_from
FROM {LEASE} l CROSS JOIN {STATE_AS_OF} r
WHERE {IS_DUE} AND l.instance_id > %(after)s
"""
IS_RELEASED = f"l.instance_id IN (SELECT i.id FROM {INSTANCE} i WHERE i.service_id = ANY (%(released)s::bigint[]))"
# Those whose hold is over are not even locked when enough have left in this sweep.
UNDECIDED = f"""
    AND {TIME_PASSES} AND statement_timestamp() BETWEEN %(at)s AND %(at)s + interval '{CENSUS_SECONDS} seconds'
    AND (l.protected_at IS NULL OR (%(may_let_go)s AND NOT {IS_HELD}) OR {IS_RELEASED})
"""
PAGE = "ORDER BY l.instance_id LIMIT %(at_most)s"
NAMED = f"""
SELECT i.id, i.service_id, due.ttl_seconds, due.overdue, due.proven, due.held_by,
    due.held_seconds, s.namespace, s.name, i.instance_id, due.heartbeat_at, due.deadline, due.held_from,
    due.window_started_at, statement_timestamp()
FROM due
JOIN {INSTANCE} i ON i.id = due.instance_id
JOIN {SERVICE} s ON s.id = i.service_id
ORDER BY i.id
"""
LOCK = f"""
-- Locks due leases, in the order of their keys, and finds each to be due by its row as locked; one that is being
-- renewed or registered at this moment is skipped.
WITH due AS MATERIALIZED ({DUE} {UNDECIDED} {PAGE} FOR NO KEY UPDATE OF l SKIP LOCKED)
{NAMED}
"""
LOOK = f"""
-- Locks nothing.
WITH due AS MATERIALIZED ({DUE} {PAGE})
{NAMED}
"""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A lease past its deadline, whose it is, and the facts that made it due. The time of a hold counts from
    `held_from`."""

    pk: int
    due: Due
    namespace: str
    service_name: str
    instance_id: str
    heartbeat_at: datetime
    deadline: datetime
    held_from: datetime
    window_started_at: datetime
    swept_at: datetime


def lock(census: Census, after: int, at_most: int, may_let_go: bool) -> list[Candidate]:
    """Lock those to be decided about; none when time stands still, or `census` is too old.

    Args:
        census: due are those that were at its moment.
        after: the key behind which the page begins.
        at_most: leases in the page.
        may_let_go: whether those whose hold is over are among them.
    """
    return find(LOCK, census, after, at_most, may_let_go)


def look(census: Census, after: int, at_most: int) -> list[Candidate]:
    """All that are past their deadline, those included that are held."""
    return find(LOOK, census, after, at_most, may_let_go=True)


def find(query: str, census: Census, after: int, at_most: int, may_let_go: bool) -> list[Candidate]:
    parameters = {
        **census.parameters(),
        "after": after,
        "at_most": at_most,
        "may_let_go": may_let_go,
        "released": sorted(census.released),
    }
    with connection.cursor() as cursor:
        cursor.execute(query, parameters)
        return [Candidate(row[0], Due(*row[1:7]), *row[7:]) for row in cursor.fetchall()]
