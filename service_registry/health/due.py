"""Find the checks that are due: any number of checkers share them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service_registry.choices import Health
from service_registry.database.base import prepared_cursor
from service_registry.database.transactions import write_transaction
from service_registry.sql import HEALTH_STANDING, INSTANCE, LEASE, SERVICE

INTERVAL = "make_interval(secs => (i.health_check->>'interval_seconds')::float8)"
# Up to a tenth less, so that checks which began together spread, and failures in a row take no longer than their
# intervals.
JITTERED = f"{INTERVAL} * (0.9 + 0.1 * random())"
# The least part of its interval between two claims of a check. A claim that arrives later than USABLE is not used, so
# that no check runs twice within half an interval, also where a checker is frozen between its claim and the check.
SHORTEST = 0.75
USABLE = 0.25

BEGIN = f"""
-- Inserts a standing for each instance that asks for a check and has none. The first check is at a random point of its
-- interval: after a deployment of many they would all run at once.
INSERT INTO {HEALTH_STANDING} (instance_id, epoch, due_at, failures, better, flapping)
SELECT i.id, 0, statement_timestamp() + {INTERVAL} * random(), 0, 0, false
FROM {INSTANCE} i
WHERE i.health_check IS NOT NULL AND NOT EXISTS (SELECT FROM {HEALTH_STANDING} h WHERE h.instance_id = i.id)
ORDER BY i.id LIMIT 1000
ON CONFLICT DO NOTHING
"""
END = f"""
-- Deletes the standings of instances that ask for no check any more, or have left. One that is locked waits for the
-- next time: two checkers would lock them in different orders.
DELETE FROM {HEALTH_STANDING} WHERE instance_id IN (
    SELECT h.instance_id FROM {HEALTH_STANDING} h
    WHERE NOT EXISTS (SELECT FROM {INSTANCE} i WHERE i.id = h.instance_id AND i.health_check IS NOT NULL)
    FOR UPDATE OF h SKIP LOCKED
)
"""
RESUME = f"""
-- Locks the standings whose next time is further away than their interval, since the clock has been set back or the
-- interval was shortened, and makes them due within it.
UPDATE {HEALTH_STANDING} h SET due_at = statement_timestamp() + {INTERVAL} * random()
FROM {INSTANCE} i
WHERE i.id = h.instance_id AND h.instance_id IN (
    SELECT h.instance_id FROM {HEALTH_STANDING} h JOIN {INSTANCE} i ON i.id = h.instance_id
    WHERE h.due_at > statement_timestamp() + {INTERVAL} * 1.1
    FOR NO KEY UPDATE OF h SKIP LOCKED
)
"""

CLAIM = f"""
-- Locks the standings that are due, skips those that another checker has locked, and moves each to its next time. A
-- claim needs no end: a checker that dies loses one run, and the next time comes for any checker. What is late by more
-- than its interval is not run now, since all of it would run at once after a pause of the checkers. What has no place
-- at its host stays due.
WITH waiting AS MATERIALIZED (
    SELECT h.instance_id, h.due_at + {INTERVAL} < statement_timestamp() AS late,
        row_number() OVER (PARTITION BY i.host ORDER BY h.due_at) + COALESCE(running.checks, 0) AS place
    FROM {HEALTH_STANDING} h
    JOIN {INSTANCE} i ON i.id = h.instance_id
    LEFT JOIN unnest(%(hosts)s::text[], %(running)s::int[]) AS running(host, checks) ON running.host = i.host
    WHERE h.due_at <= statement_timestamp() AND i.health_check IS NOT NULL
),
due AS MATERIALIZED (
    SELECT h.instance_id, h.due_at FROM {HEALTH_STANDING} h
    JOIN waiting w ON w.instance_id = h.instance_id
    -- Once more: another checker may have claimed it since.
    WHERE h.due_at <= statement_timestamp() AND (w.late OR w.place <= %(places_per_host)s)
    ORDER BY h.due_at LIMIT %(places)s
    FOR NO KEY UPDATE OF h SKIP LOCKED
)
UPDATE {HEALTH_STANDING} h
SET due_at = CASE WHEN due.due_at + {INTERVAL} < statement_timestamp()
    THEN statement_timestamp() + {INTERVAL} * random()
    ELSE GREATEST(due.due_at + {JITTERED}, statement_timestamp() + {INTERVAL} * {SHORTEST}) END
FROM due
JOIN {INSTANCE} i ON i.id = due.instance_id
JOIN {SERVICE} s ON s.id = i.service_id
JOIN {LEASE} l ON l.instance_id = i.id
WHERE h.instance_id = due.instance_id
RETURNING i.id, s.namespace, s.name, i.instance_id, s.owners, i.host, i.port, i.scheme, i.health_check, l.epoch,
    i.health = '{Health.CRITICAL}', due.due_at + {INTERVAL} < statement_timestamp(),
    l.expired_at IS NOT NULL, extract(epoch FROM statement_timestamp() - due.due_at)::float8,
    extract(epoch FROM statement_timestamp())::float8
"""


@dataclass(frozen=True, slots=True)
class DueCheck:
    """A check that is this process's to run.

    Attributes:
        check: as registered, with its defaults.
        critical: whether the instance was critical before.
        late: too late to run; it has its next time already.
        expired: whether the instance is off the list, where only a check that renews can bring it back.
        delay_seconds: since it was due.
        claimed_at: seconds, by the database's clock.
    """

    instance_pk: int
    namespace: str
    service_name: str
    instance_id: str
    owners: tuple[str, ...]
    host: str
    port: int
    scheme: str
    check: dict[str, Any]
    epoch: int
    critical: bool
    late: bool
    expired: bool
    delay_seconds: float
    claimed_at: float

    def is_usable(self, seconds: float) -> bool:
        """Return whether the check may run this long after the claim."""
        return not self.late and seconds <= USABLE * self.check["interval_seconds"]


def follow_registrations() -> None:
    """Begin and end the standings of instances whose registration asks for a check, or no more."""
    with write_transaction(lock_timeout="1s", synchronous_commit="off"), prepared_cursor() as cursor:
        cursor.execute(BEGIN)
        cursor.execute(END)
        cursor.execute(RESUME)


def claim_due_checks(places: int, running: Mapping[str, int], places_per_host: int) -> list[DueCheck]:
    """Claim the checks that have been due for longest. Each is claimed once, by one checker.

    Args:
        places: how many to claim at most.
        running: how many checks run now, by host.
        places_per_host: how many may run at once on a host.
    """
    parameters: dict[str, Any] = {
        "places": places,
        "places_per_host": places_per_host,
        "hosts": list(running),
        "running": list(running.values()),
    }
    with write_transaction(lock_timeout="1s", synchronous_commit="off"), prepared_cursor() as cursor:
        cursor.execute(CLAIM, parameters)
        rows = cursor.fetchall()
    return [
        DueCheck(pk, namespace, service_name, instance_id, tuple(owners), host, port, scheme, json.loads(check), *rest)
        for pk, namespace, service_name, instance_id, owners, host, port, scheme, check, *rest in rows
    ]
