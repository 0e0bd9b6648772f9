"""Table names, and the SQL that turns rows into the JSON documents of responses.

The expressions use these aliases: `s` is a service, `i` an instance, `l` its lease, `o` its override or nulls, `r` the
row of the registry's state, `c` a change, `h` the standing of its health checks.
"""

from collections.abc import Iterable

from service_registry.choices import Health, Judge, State, Status

# The order of the indexes by service and by instance, which find the newest change with one read.
NEWEST_FIRST = "(c.id * -1)"

SERVICE, INSTANCE, LEASE = "service_registry_service", "service_registry_instance", "service_registry_lease"
OVERRIDE, CHANGE, STATE = "service_registry_override", "service_registry_change", "service_registry_registrystate"
HEALTH_STANDING, HEALTH_CHECKER = "service_registry_healthstanding", "service_registry_healthchecker"
RESERVATION, OWNER_USAGE = "service_registry_reservation", "service_registry_ownerusage"


def rfc3339(timestamp: str) -> str:
    """Return the expression that formats `timestamp` in UTC with microseconds.

    The format is that of RFC 3339, section 5.6.
    """
    return f"""to_char({timestamp} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""


def literals(constants: Iterable[str]) -> str:
    """Return the right side of an SQL IN for constants of this code.

    They need no escaping.
    """
    return "('" + "', '".join(constants) + "')"


# NULL for a heartbeat in the future: the clock has been set back since, which has restarted the observation window,
# too. The ten seconds allow for a heartbeat that arrives while the statement runs, and for small corrections of the
# clock.
HEARTBEAT_AT = "CASE WHEN l.heartbeat_at < statement_timestamp() + interval '10 seconds' THEN l.heartbeat_at END"
# A lease counts from its last heartbeat, or from the start of the observation window when that is later (GREATEST
# ignores nulls).
RENEWED_AT = f"GREATEST({HEARTBEAT_AT}, r.window_started_at)"
GRACE = "make_interval(secs => GREATEST(1.1::float8 * l.ttl_seconds, l.ttl_seconds + 1))"
# NULL for a permanent instance: it is never due.
DEADLINE = f"({RENEWED_AT} + {GRACE})"


def grace_seconds(ttl_seconds: int) -> float:
    """Return GRACE: the time from the last renewal of a lease to its deadline."""
    return max(1.1 * ttl_seconds, ttl_seconds + 1.0)


# Critical health counts where it is worse than what the instance reports: anything but UP gets no traffic anyway.
EFFECTIVE_STATUS = (
    f"COALESCE(o.status, CASE WHEN i.health = '{Health.CRITICAL}' AND i.reported_status = '{Status.UP}' "
    f"THEN '{Status.DOWN}' ELSE i.reported_status END)"
)
STATE_NAME = (
    f"CASE WHEN l.expired_at IS NOT NULL THEN '{State.EXPIRED}' "
    f"WHEN l.protected_at IS NOT NULL THEN '{State.PROTECTED}' ELSE '{State.LIVE}' END"
)
URL = (
    "i.scheme || '://' || CASE WHEN strpos(i.host, ':') > 0 THEN '[' || i.host || ']' ELSE i.host END || ':' || i.port"
)

# Arrays and objects are jsonb, so that they are rendered like those in the log, where the whole document is jsonb.
MEMBERS = {
    "namespace": "s.namespace",
    "service_name": "s.name",
    "instance_id": "i.instance_id",
    "host": "i.host",
    "port": "i.port",
    "scheme": "i.scheme",
    "zone": "i.zone",
    "weight": "i.weight",
    "tags": "to_jsonb(i.tags)",
    "metadata": "i.metadata",
    "status": EFFECTIVE_STATUS,
    "reported_status": "i.reported_status",
    "health": "i.health",
    "override": f"""CASE WHEN o.id IS NOT NULL
        THEN jsonb_build_object('status', o.status, 'until', {rfc3339("o.until")}) END""",
    "state": STATE_NAME,
    "protected": "l.protected_at IS NOT NULL",
    "ttl_seconds": "l.ttl_seconds",
    "epoch": "l.epoch",
    "registered_at": rfc3339("i.registered_at"),
    "url": URL,
}
INSTANCE_MEMBERS = ", ".join(f"'{name}', {expression}" for name, expression in MEMBERS.items())
# The members of a lease. For many rows, separate columns cost less than one document a row.
LEASE_MEMBERS = {
    "heartbeat_at": rfc3339("l.heartbeat_at"),
    "expires_at": rfc3339(DEADLINE),
    "heartbeat_interval_seconds": "round(l.ttl_seconds * 1000 / 3.0::float8) / 1000",
    "ttl_seconds": "l.ttl_seconds",
    "epoch": "l.epoch",
}
LEASE_PAIRS = ", ".join(f"'{name}', {column}" for name, column in LEASE_MEMBERS.items())
LEASE_DOCUMENT = f"json_build_object({LEASE_PAIRS})"
INSTANCE_DOCUMENT = f"json_build_object({INSTANCE_MEMBERS})"
# The instance in a change, byte for byte as INSTANCE_DOCUMENT rendered it.
LOGGED_MEMBERS = ", ".join(f"'{name}', c.instance->'{name}'" for name in MEMBERS)
LOGGED_DOCUMENT = f"CASE WHEN c.instance IS NOT NULL THEN json_build_object({LOGGED_MEMBERS}) END"
# The judges of an instance take it out of discovery when they fail. One that is permanent and unchecked has none.
JUDGED_BY = f"""array_remove(ARRAY[
    CASE WHEN l.ttl_seconds IS NOT NULL THEN '{Judge.LEASE}' END,
    CASE WHEN i.health_check IS NOT NULL THEN '{Judge.HEALTH_CHECK}' END], NULL)"""

INSTANCE_ROWS = f"""
    {INSTANCE} i
    JOIN {SERVICE} s ON s.id = i.service_id
    JOIN {LEASE} l ON l.instance_id = i.id
    LEFT JOIN {OVERRIDE} o ON o.service_id = i.service_id AND o.instance_id = i.instance_id
"""

# The standing of the process that has the lease now; nulls before its first result.
STANDING_ROWS = f"""
    LEFT JOIN {HEALTH_STANDING} h ON h.instance_id = i.id AND h.epoch = l.epoch AND i.health IS NOT NULL
"""
LAST_CHECK_MEMBERS = f"""'checked_at', {rfc3339("h.checked_at")}, 'level', h.level, 'cause', h.cause,
    'seconds', round(h.seconds::numeric, 3)"""

IS_LISTED = "l.expired_at IS NULL"
# Should receive traffic: what discovery returns by default.
IS_HEALTHY = f"{IS_LISTED} AND {EFFECTIVE_STATUS} = '{Status.UP}'"
