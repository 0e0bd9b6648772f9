"""The census: what the rules need to know of the fleet, counted in the database at one moment and without a lock."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db import connection

from service_registry.choices import Rule
from service_registry.expiry.conditions import (
    HEARS,
    IS_DUE,
    IS_GONE,
    IS_HELD,
    IS_LATE,
    IS_LIVE,
    IS_PROVEN,
    STATE_AS_OF,
)
from service_registry.expiry.limits import limits
from service_registry.expiry.rules import SILENCE_SERVICES, Cohort, Counts, Crowd, Group, Silence
from service_registry.sql import HEARTBEAT_AT, INSTANCE, LEASE, RENEWED_AT, SERVICE, STATE

RELEASED_MINUTES = 15


def epoch(timestamp: str) -> str:
    return f"extract(epoch FROM {timestamp})::float8"


MOMENT = f"""
SELECT statement_timestamp(), {epoch("statement_timestamp()")}, {HEARS},
    {epoch("r.suspended_at")}, {epoch("r.suspended_until")}, {epoch("r.suspension_budget_full_at")}, r.exceeded_limits,
    (SELECT array_agg(s.id) FROM {SERVICE} s
        WHERE s.released_at BETWEEN statement_timestamp() - interval '{RELEASED_MINUTES} minutes'
            AND statement_timestamp())
FROM {STATE} r WHERE r.id = 1
"""

COHORTS = f"""
-- One pass over the narrow table, and nothing beside it.
SELECT l.ttl_seconds,
    count(*) FILTER (WHERE {IS_PROVEN} AND {IS_LIVE}),
    count(*) FILTER (WHERE {IS_PROVEN} AND {IS_LATE}),
    count(*) FILTER (WHERE {IS_PROVEN} AND {IS_GONE}),
    COALESCE({epoch(f"max({RENEWED_AT}) FILTER (WHERE {IS_PROVEN} AND {IS_LIVE})")}, 0),
    count(*) FILTER (WHERE {IS_DUE}),
    count(*) FILTER (WHERE {IS_DUE} AND NOT {IS_HELD}),
    {epoch(f"min({HEARTBEAT_AT}) FILTER (WHERE {IS_PROVEN} AND {IS_LIVE} AND l.heartbeat_at > r.suspended_at)")}
FROM {LEASE} l CROSS JOIN {STATE_AS_OF} r
WHERE {IS_LIVE} OR {IS_GONE}
GROUP BY l.ttl_seconds
"""

GROUPS = f"""
-- Those that are counted lead to their services, and these to all of their leases: by keys, for in most sweeps they
-- are few.
WITH counted AS MATERIALIZED (
    SELECT l.instance_id FROM {LEASE} l CROSS JOIN {STATE_AS_OF} r WHERE {IS_PROVEN} AND ({IS_LATE} OR {IS_GONE})
),
named AS MATERIALIZED (
    SELECT DISTINCT i.service_id FROM {INSTANCE} i
    WHERE i.id = ANY ((SELECT array_agg(instance_id) FROM counted)::bigint[])
)
SELECT i.service_id, l.ttl_seconds, count(*), count(*) FILTER (WHERE {IS_LATE} OR {IS_GONE})
FROM {INSTANCE} i
JOIN {LEASE} l ON l.instance_id = i.id
CROSS JOIN {STATE_AS_OF} r
WHERE i.service_id = ANY ((SELECT array_agg(service_id) FROM named)::bigint[])
    AND {IS_PROVEN} AND ({IS_LIVE} OR {IS_GONE})
GROUP BY i.service_id, l.ttl_seconds
"""

SERVICES = f"""
-- No more than are asked for: each time the next service with a proven live lease.
SELECT count(*) FROM (
    SELECT FROM {SERVICE} s WHERE EXISTS (
        SELECT FROM {INSTANCE} i JOIN {LEASE} l ON l.instance_id = i.id
        WHERE i.service_id = s.id AND {IS_PROVEN} AND {IS_LIVE})
    LIMIT {SILENCE_SERVICES}
) AS found
"""


@dataclass(frozen=True, slots=True)
class Census:
    """`at` is the moment of all that is counted, `now` the same in seconds. `silence` and `crowds` stood before it.
    `due` are past their deadline, `undecided` those of them that no hold keeps; `beaten_at` is the first heartbeat seen
    since the silence began; `restart_at` is when the window would restart that has not yet."""

    at: datetime
    now: float
    hears: bool
    silence: Silence
    crowds: Mapping[int, Crowd]
    released: frozenset[int]
    cohorts: list[Cohort] = field(default_factory=list)
    due: int = 0
    undecided: int = 0
    beaten_at: float | None = None
    restart_at: float | None = None

    @property
    def asks_for_judgement(self) -> bool:
        """Whether anybody who is due is not held, or is held in a service that was released."""
        return self.undecided > 0 or (self.due > 0 and bool(self.released))

    @property
    def counts(self) -> Counts:
        """What silence is seen by."""
        return Counts(self.now, self.cohorts, self.beaten_at)

    def parameters(self) -> Mapping[str, Any]:
        """Those of the conditions."""
        return parameters_at(self.at, self.restart_at)


def parameters_at(at: datetime, restart_at: float | None) -> Mapping[str, Any]:
    allowed = limits()
    return {
        "at": at,
        "restart_at": restart_at,
        "fleet_seconds": allowed.seconds(Rule.FLEET),
        "service_seconds": allowed.seconds(Rule.SERVICE),
    }


def take(restart_at: float | None = None) -> Census:
    """Count the fleet, TTL by TTL.

    Args:
        restart_at: count as if the window had restarted then, in seconds by the database's clock.
    """
    with connection.cursor() as cursor:
        cursor.execute(MOMENT)
        at, now, hears, since, until, repaid_at, crowds, released = cursor.fetchone()
        cursor.execute(COHORTS, parameters_at(at, restart_at))
        rows = cursor.fetchall()
    return Census(
        at,
        now,
        hears,
        Silence(since, until, repaid_at),
        {int(ttl_seconds): Crowd(*seen) for ttl_seconds, seen in json.loads(crowds).items()},
        frozenset(released or ()),
        [Cohort(*row[:5]) for row in rows],
        due=sum(row[5] for row in rows),
        undecided=sum(row[6] for row in rows),
        beaten_at=min((row[7] for row in rows if row[7] is not None), default=None),
        restart_at=restart_at,
    )


def groups(census: Census) -> list[Group]:
    """The leases of the services in which anybody is late or gone, service by service."""
    with connection.cursor() as cursor:
        cursor.execute(GROUPS, census.parameters())
        return [Group(*row) for row in cursor.fetchall()]


def services_at_least() -> int:
    """How many services have a proven live lease, counted no further than silence asks for."""
    with connection.cursor() as cursor:
        cursor.execute(SERVICES)
        (count,) = cursor.fetchone()
    return int(count)
