"""What a sweep would do now: by the sweep's own conditions, and without a lock."""

from collections.abc import Iterator
from dataclasses import dataclass

from django.conf import settings
from django.db import connection

from service_registry.documents import DEADLINE, INSTANCE, LEASE, OVERRIDE, SERVICE, STATE, rfc3339
from service_registry.expiry.sweep import HEARS, IS_OVER, IS_OVER_RETENTION, IS_OVERDUE

PAGE = 500

OUTLOOK = f"""
SELECT {HEARS}, {rfc3339("r.heard_at")}, {rfc3339("r.window_start")}, r.window_reason, {rfc3339("r.swept_at")},
    (SELECT count(*) FROM {LEASE} l WHERE {IS_OVERDUE}),
    (SELECT count(*) FROM {LEASE} l WHERE {IS_OVER_RETENTION}),
    (SELECT count(*) FROM {OVERRIDE} o WHERE {IS_OVER})
FROM {STATE} r WHERE r.id = 1
"""


@dataclass(frozen=True, slots=True)
class Outlook:
    """Times are texts by the database's clock. While `hears` is False, `overdue` and `retained_enough` stay."""

    hears: bool
    heard_at: str
    window_start: str
    window_reason: str
    swept_at: str
    overdue: int
    retained_enough: int
    overrides_over: int


def outlook() -> Outlook:
    with connection.cursor() as cursor:
        cursor.execute(OUTLOOK, [settings.REGISTRY_RETENTION_SECONDS])
        return Outlook(*cursor.fetchone())


OVERDUE = f"""
SELECT i.id, s.namespace, s.name, i.instance_id, {rfc3339("l.heartbeat_at")}, {rfc3339(DEADLINE)}
FROM {LEASE} l
CROSS JOIN {STATE} r
JOIN {INSTANCE} i ON i.id = l.instance_id
JOIN {SERVICE} s ON s.id = i.service_id
WHERE {IS_OVERDUE} AND l.instance_id > %s
ORDER BY l.instance_id LIMIT {PAGE}
"""


@dataclass(frozen=True, slots=True)
class Overdue:
    """An instance past its deadline. Times are texts by the database's clock."""

    namespace: str
    service_name: str
    instance_id: str
    heartbeat_at: str
    deadline: str


def overdue() -> Iterator[Overdue]:
    """Whom a sweep finds past their deadline, a page at a time: there may be as many as there are instances."""
    last, full = 0, True
    while full:
        with connection.cursor() as cursor:
            cursor.execute(OVERDUE, [last])
            rows = cursor.fetchall()
        yield from (Overdue(*facts) for _pk, *facts in rows)
        full = len(rows) == PAGE
        last = rows[-1][0] if rows else last
