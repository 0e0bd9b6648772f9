"""The conditions by which the sweep, and what foretells it, judge leases: SQL over a lease `l` and the state `r`.

Counting and judging refer to one moment, `%(at)s`, which is the database's: a lease that is due only since then waits
for the next sweep, where its cohort is counted anew.
"""

from service_registry.expiry.rules import GONE_SECONDS, LATE_AFTER
from service_registry.sql import DEADLINE, RENEWED_AT, STATE

# While nobody can hear, or the whole fleet is silent, time stands still. A clock that has been set back restarts the
# window with the next pulse; until then heartbeats are of a time to come, and nothing is judged by them.
HEARS = """r.id = 1 AND r.observed_at > statement_timestamp() - interval '5 seconds'
    AND r.observed_at < statement_timestamp() + interval '5 seconds'"""
TIME_PASSES = f"{HEARS} AND (r.suspended_until IS NULL OR r.suspended_until <= statement_timestamp())"

# The state, as it would be had the window restarted at %(restart_at)s, for those who foretell; a null changes nothing.
STATE_AS_OF = f"""(
    SELECT id, observed_at, suspended_at, suspended_until,
        GREATEST(window_started_at, to_timestamp(%(restart_at)s)) AS window_started_at
    FROM {STATE}
)"""

IS_LIVE = "l.expired_at IS NULL"
IS_PROVEN = "l.beats > 0"
IS_LATE = f"({IS_LIVE} AND {RENEWED_AT} < %(at)s - l.ttl_seconds * interval '{LATE_AFTER} seconds')"
# NULL, and so not gone, for a live one; a heartbeat since has made it live. A time to come is that of a clock that has
# been set back.
IS_GONE = f"(l.expired_at > %(at)s - interval '{GONE_SECONDS} seconds' AND l.expired_at <= %(at)s)"
IS_DUE = f"({IS_LIVE} AND {DEADLINE} <= %(at)s)"

# A hold's time counts from the deadline, or from when it was given if that is earlier: a window that restarts moves the
# deadline, and must not make a hold longer.
HELD_FROM = f"LEAST({DEADLINE}, l.protected_at)"
# What the sweep has nothing to do with: held, and the time of the rule that holds it is not over. A hold that was given
# at a time to come, by a clock that has been set back since, is given anew.
HOLD = "make_interval(secs => CASE l.protected_by WHEN 'fleet' THEN %(fleet_seconds)s ELSE %(service_seconds)s END)"
IS_HELD = f"(l.protected_at IS NOT NULL AND l.protected_at <= %(at)s AND %(at)s < {HELD_FROM} + {HOLD})"
IS_OVER_RETENTION = "l.expired_at < statement_timestamp() - make_interval(secs => %(retention)s)"
IS_OVER = "o.until <= statement_timestamp()"
