"""Find the checks that are due: any number of checkers share them."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from service_registry.choices import Health
from service_registry.database.base import prepared_cursor
from service_registry.database.transactions import write_transaction
from service_registry.sql import HEALTH_STANDING, INSTANCE, LEASE, SERVICE

INTERVAL = "make_interval(secs => (i.health_check->>'interval_seconds')::float8)"
# A tenth less to a tenth more, so that checks which began together spread.
JITTERED = f"{INTERVAL} * (0.9 + 0.2 * random())"

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
-- Deletes the standings of instances that ask for no check any more, or have left.
DELETE FROM {HEALTH_STANDING} h
WHERE NOT EXISTS (SELECT FROM {INSTANCE} i WHERE i.id = h.instance_id AND i.health_check IS NOT NULL)
"""

CLAIM = f"""
-- Locks the standings that are due, skips those that another checker has locked, and moves each to its next time. A
-- claim needs no end: a checker that dies loses one run, and the next time comes for any checker. What is late by more
-- than its interval is not run now, since all of it would run at once after a pause of the checkers.
WITH due AS MATERIALIZED (
    SELECT h.instance_id, h.due_at FROM {HEALTH_STANDING} h
    JOIN {INSTANCE} i ON i.id = h.instance_id
    WHERE h.due_at <= statement_timestamp() AND i.health_check IS NOT NULL AND i.host <> ALL (%(busy_hosts)s::text[])
    ORDER BY h.due_at LIMIT %(at_most)s
    FOR NO KEY UPDATE OF h SKIP LOCKED
)
UPDATE {HEALTH_STANDING} h
SET due_at = CASE WHEN due.due_at + {INTERVAL} < statement_timestamp()
    THEN statement_timestamp() + {INTERVAL} * random()
    ELSE GREATEST(due.due_at + {JITTERED}, statement_timestamp() + {INTERVAL} * 0.6) END
FROM due
JOIN {INSTANCE} i ON i.id = due.instance_id
JOIN {SERVICE} s ON s.id = i.service_id
JOIN {LEASE} l ON l.instance_id = i.id
WHERE h.instance_id = due.instance_id
RETURNING i.id, s.namespace, s.name, i.instance_id, s.owners, i.host, i.port, i.scheme, i.health_check, l.epoch,
    i.health = '{Health.CRITICAL}', due.due_at + {INTERVAL} < statement_timestamp(),
    l.expired_at IS NOT NULL, extract(epoch FROM statement_timestamp() - due.due_at)::float8
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


def follow_registrations() -> None:
    """Begin and end the standings of instances whose registration asks for a check, or no more."""
    with write_transaction(lock_timeout="1s", synchronous_commit="off"), prepared_cursor() as cursor:
        cursor.execute(BEGIN)
        cursor.execute(END)


def claim_due_checks(at_most: int, busy_hosts: Collection[str]) -> list[DueCheck]:
    """Claim the checks that have been due for longest. Each is claimed once, by one checker.

    Args:
        at_most: how many.
        busy_hosts: hosts that get no further check now.
    """
    with write_transaction(lock_timeout="1s", synchronous_commit="off"), prepared_cursor() as cursor:
        cursor.execute(CLAIM, {"at_most": at_most, "busy_hosts": list(busy_hosts)})
        rows = cursor.fetchall()
    return [
        DueCheck(pk, namespace, service_name, instance_id, tuple(owners), host, port, scheme, json.loads(check), *rest)
        for pk, namespace, service_name, instance_id, owners, host, port, scheme, check, *rest in rows
    ]
