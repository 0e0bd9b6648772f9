"""Count the fleet for the rules: in the database, at one moment, without a lock.

Counts and decisions refer to the same moment, `%(at)s`, by the database's clock. A lease that becomes due later waits
for the next sweep, which counts its cohort anew.

The conditions read these aliases: `l` a lease, `r` the registry's state.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import connection

from service_registry.choices import Rule
from service_registry.expiry import fleet_suspension
from service_registry.expiry.fleet_suspension import FleetActivity, Suspension
from service_registry.expiry.observation_window import IS_OBSERVED
from service_registry.expiry.protection import (
    LATE_AFTER,
    RECENT_EXPIRY_SECONDS,
    Cohort,
    ExceededLimit,
    Group,
    Limits,
)
from service_registry.sql import DEADLINE, HEARTBEAT_AT, INSTANCE, LEASE, RENEWED_AT, SERVICE, STATE

RELEASED_MINUTES = 15

# The state, as if the observation window had restarted at %(window_restart_at)s: a dry run writes no restart. NULL
# changes nothing.
STATE_WITH_RESTART = f"""(
    SELECT id, observed_at, suspended_at, suspended_until,
        GREATEST(window_started_at, to_timestamp(%(window_restart_at)s)) AS window_started_at
    FROM {STATE}
)"""

# A permanent instance is in no count: no rule about leases may take it for one that is renewed.
IS_LIVE = "(l.expired_at IS NULL AND l.ttl_seconds IS NOT NULL)"
IS_PROVEN = "l.beats > 0"
# A lease that health checks renew does not end while the checks do not say so, also where no checker runs.
MAY_END = f"{IS_LIVE} AND l.check_failing IS NOT FALSE"
IS_LATE = f"({MAY_END} AND {RENEWED_AT} < %(at)s - l.ttl_seconds * interval '{LATE_AFTER} seconds')"
# False for a lease that was renewed after it expired, since a heartbeat clears `expired_at`. A time in the future is
# that of a clock that has been set back.
EXPIRED_RECENTLY = f"(l.expired_at > %(at)s - interval '{RECENT_EXPIRY_SECONDS} seconds' AND l.expired_at <= %(at)s)"
IS_DUE = f"({MAY_END} AND {DEADLINE} <= %(at)s)"

# A protection's time counts from the deadline, or from when it began if that is earlier: a restart of the window moves
# the deadline, and must not extend a protection.
PROTECTED_FROM = f"LEAST({DEADLINE}, l.protected_at)"
PROTECTION_TIME = (
    f"make_interval(secs => CASE l.protected_by WHEN '{Rule.FLEET}' THEN %(fleet_seconds)s "
    "ELSE %(service_seconds)s END)"
)
# Protected, and the time of the rule is not over: the sweep leaves the lease alone. A protection that began in the
# future, by a clock that has been set back since, begins anew.
IS_PROTECTED = (
    f"(l.protected_at IS NOT NULL AND l.protected_at <= %(at)s AND %(at)s < {PROTECTED_FROM} + {PROTECTION_TIME})"
)


def epoch(timestamp: str) -> str:
    """Return the SQL expression for `timestamp` in seconds since 1970."""
    return f"extract(epoch FROM {timestamp})::float8"


READ_STATE = f"""
SELECT statement_timestamp(), {epoch("statement_timestamp()")}, {IS_OBSERVED},
    {epoch("r.suspended_at")}, {epoch("r.suspended_until")}, {epoch("r.suspension_budget_full_at")}, r.exceeded_limits,
    (SELECT array_agg(s.id) FROM {SERVICE} s
        WHERE s.released_at BETWEEN statement_timestamp() - interval '{RELEASED_MINUTES} minutes'
            AND statement_timestamp())
FROM {STATE} r WHERE r.id = 1
"""

COUNT_COHORTS = f"""
-- One pass over the narrow table of leases.
SELECT l.ttl_seconds,
    count(*) FILTER (WHERE {IS_PROVEN} AND {IS_LIVE}),
    count(*) FILTER (WHERE {IS_PROVEN} AND {IS_LATE}),
    count(*) FILTER (WHERE {IS_PROVEN} AND {EXPIRED_RECENTLY}),
    COALESCE({epoch(f"max({RENEWED_AT}) FILTER (WHERE {IS_PROVEN} AND {IS_LIVE})")}, 0),
    count(*) FILTER (WHERE {IS_DUE}),
    count(*) FILTER (WHERE {IS_DUE} AND NOT {IS_PROTECTED}),
    {epoch(f"min({HEARTBEAT_AT}) FILTER (WHERE {IS_PROVEN} AND {IS_LIVE} AND l.heartbeat_at > r.suspended_at)")}
FROM {LEASE} l CROSS JOIN {STATE_WITH_RESTART} r
WHERE {IS_LIVE} OR {EXPIRED_RECENTLY}
GROUP BY l.ttl_seconds
"""

COUNT_GROUPS = f"""
-- By keys: from the counted leases to their services, and from these to all of their leases. In most sweeps they are
-- few.
WITH counted AS MATERIALIZED (
    SELECT l.instance_id FROM {LEASE} l CROSS JOIN {STATE_WITH_RESTART} r
    WHERE {IS_PROVEN} AND ({IS_LATE} OR {EXPIRED_RECENTLY})
),
affected AS MATERIALIZED (
    SELECT DISTINCT i.service_id FROM {INSTANCE} i
    WHERE i.id = ANY ((SELECT array_agg(instance_id) FROM counted)::bigint[])
)
SELECT i.service_id, l.ttl_seconds, count(*), count(*) FILTER (WHERE {IS_LATE} OR {EXPIRED_RECENTLY})
FROM {INSTANCE} i
JOIN {LEASE} l ON l.instance_id = i.id
CROSS JOIN {STATE_WITH_RESTART} r
WHERE i.service_id = ANY ((SELECT array_agg(service_id) FROM affected)::bigint[])
    AND {IS_PROVEN} AND ({IS_LIVE} OR {EXPIRED_RECENTLY})
GROUP BY i.service_id, l.ttl_seconds
"""

COUNT_SERVICES = f"""
-- Stops at the number that a suspension needs.
SELECT count(*) FROM (
    SELECT FROM {SERVICE} s WHERE EXISTS (
        SELECT FROM {INSTANCE} i JOIN {LEASE} l ON l.instance_id = i.id
        WHERE i.service_id = s.id AND {IS_PROVEN} AND {IS_LIVE})
    LIMIT {fleet_suspension.MINIMUM_SERVICES}
) AS found
"""


@dataclass(frozen=True, slots=True)
class FleetCount:
    """The fleet and the registry's state at one moment.

    The moment is `at`, and `now` in seconds. `suspension` and `exceeded_limits` are as stored before the count.
    `due` leases are past their deadline; `unprotected` are those of them that no rule protects any more.
    `first_heartbeat_at` is the first heartbeat since the suspension started. `window_restart_at` is a restart of
    the observation window that is not yet stored.
    """

    at: datetime
    now: float
    is_observed: bool
    suspension: Suspension
    exceeded_limits: Mapping[int, ExceededLimit]
    released_services: frozenset[int]
    cohorts: list[Cohort] = field(default_factory=list)
    due: int = 0
    unprotected: int = 0
    first_heartbeat_at: float | None = None
    window_restart_at: float | None = None

    @property
    def needs_decisions(self) -> bool:
        """Return whether a due lease is unprotected, or protected in a released service."""
        return self.unprotected > 0 or (self.due > 0 and bool(self.released_services))

    @property
    def activity(self) -> FleetActivity:
        return FleetActivity(self.now, self.cohorts, self.first_heartbeat_at)

    def parameters(self) -> Mapping[str, Any]:
        """Return the parameters of the conditions."""
        return build_parameters(self.at, self.window_restart_at)


def configured_limits() -> Limits:
    """Return the limits that the settings give."""
    return Limits(
        suspension_max_seconds=settings.REGISTRY_SILENCE_MAX_SECONDS,
        fleet_fraction=settings.REGISTRY_PROTECTION_FRACTION,
        fleet_minimum=settings.REGISTRY_PROTECTION_MINIMUM,
        fleet_seconds=settings.REGISTRY_PROTECTION_MAX_SECONDS,
        service_fraction=settings.REGISTRY_SERVICE_PROTECTION_FRACTION,
        service_seconds=settings.REGISTRY_SERVICE_PROTECTION_MAX_SECONDS,
    )


def build_parameters(at: datetime, window_restart_at: float | None) -> Mapping[str, Any]:
    limits = configured_limits()
    return {
        "at": at,
        "window_restart_at": window_restart_at,
        "fleet_seconds": limits.seconds(Rule.FLEET),
        "service_seconds": limits.seconds(Rule.SERVICE),
    }


def count_fleet(window_restart_at: float | None = None) -> FleetCount:
    """Count the fleet by TTL.

    Args:
        window_restart_at: count as if the observation window had restarted then, in seconds by the database's clock.
    """
    with connection.cursor() as cursor:
        cursor.execute(READ_STATE)
        at, now, is_observed, started_at, until, budget_full_at, exceeded_limits, released = cursor.fetchone()
        cursor.execute(COUNT_COHORTS, build_parameters(at, window_restart_at))
        rows = cursor.fetchall()
    return FleetCount(
        at,
        now,
        is_observed,
        Suspension(started_at, until, budget_full_at),
        {int(ttl_seconds): ExceededLimit(*exceeded) for ttl_seconds, exceeded in json.loads(exceeded_limits).items()},
        frozenset(released or ()),
        [Cohort(*row[:5]) for row in rows],
        due=sum(row[5] for row in rows),
        unprotected=sum(row[6] for row in rows),
        first_heartbeat_at=min((row[7] for row in rows if row[7] is not None), default=None),
        window_restart_at=window_restart_at,
    )


def count_groups(fleet: FleetCount) -> list[Group]:
    """Count the services that have late or recently expired leases, by TTL."""
    with connection.cursor() as cursor:
        cursor.execute(COUNT_GROUPS, fleet.parameters())
        return [Group(*row) for row in cursor.fetchall()]


def count_services() -> int:
    """Count the services with a proven live lease, until a suspension has enough."""
    with connection.cursor() as cursor:
        cursor.execute(COUNT_SERVICES)
        (count,) = cursor.fetchone()
    return int(count)
