"""heartbeat: an instance says that it is still there, and may report a new status of itself."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from django.db import connection

from service_registry import changelog
from service_registry.caller import Caller
from service_registry.choices import ChangeKind
from service_registry.database.transactions import write_transaction
from service_registry.exceptions import InstanceNotFound, LeaseSuperseded, NotOwner, RegistryError
from service_registry.manager import reported_status
from service_registry.manager.batch import (
    ASKED_SERVICES,
    ITEMS,
    Submission,
    column,
    columns_of,
    each_once,
    key_of,
    split,
    submissions_of,
)
from service_registry.schemas import Heartbeat
from service_registry.sql import EFFECTIVE_STATUS, INSTANCE, LEASE, LEASE_MEMBERS, OVERRIDE, STATE


class Renewed(NamedTuple):
    """The lease is renewed. `recovered` when the instance had expired and is listed again; `changed` when a reader sees
    a difference; `status` is effective."""

    status: str
    recovered: bool
    changed: bool
    lease: dict[str, Any]


BEAT = f"""
-- Locks leases, in the order of their keys. Instances whose status is reported are locked already.
WITH {ASKED_SERVICES},
beat AS MATERIALIZED (
    SELECT * FROM unnest({ITEMS}, {split("epochs")}::bigint[]) WITH ORDINALITY
        AS beat(place, instance_id, epoch, position)
),
locked AS MATERIALIZED (
    SELECT beat.position, l.instance_id, {EFFECTIVE_STATUS} AS status,
        beat.epoch IS NULL OR beat.epoch = l.epoch AS current, l.expired_at IS NOT NULL AS expired,
        l.protected_at IS NOT NULL AS protected, l.ttl_seconds, l.epoch
    FROM beat
    JOIN asked_service s ON s.place = beat.place
    JOIN {INSTANCE} i ON i.service_id = s.id AND i.instance_id = beat.instance_id
    JOIN {LEASE} l ON l.instance_id = i.id
    LEFT JOIN {OVERRIDE} o ON o.service_id = s.id AND o.instance_id = beat.instance_id
    WHERE s.ours
    ORDER BY l.instance_id
    FOR NO KEY UPDATE OF l
),
-- One moment for all, once the last of them is locked: what follows from it is told for each TTL, and not for each row.
heard AS MATERIALIZED (SELECT CASE WHEN count(*) > 0 THEN clock_timestamp() END AS at FROM locked),
beaten AS (
    UPDATE {LEASE} l
    SET heartbeat_at = heard.at, beats = l.beats + 1, expired_at = NULL, protected_at = NULL
    FROM locked, heard WHERE l.instance_id = locked.instance_id AND locked.current
),
told AS (
    SELECT {", ".join(f"{expression} AS {name}" for name, expression in LEASE_MEMBERS.items() if name != "epoch")}
    FROM (SELECT DISTINCT ttl_seconds, heard.at AS heartbeat_at FROM locked, heard WHERE current) l CROSS JOIN {STATE} r
)
-- Nothing comes of an item that has no row.
SELECT position - 1, instance_id, status, expired, protected, ttl_seconds, epoch, NULL::text, NULL::text, NULL::float8
FROM locked WHERE current
UNION ALL
SELECT position - 1, instance_id, status, NULL, NULL, NULL, NULL, NULL, NULL, NULL FROM locked WHERE NOT current
UNION ALL
SELECT beat.position - 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
FROM beat JOIN asked_service s USING (place) WHERE NOT s.ours
UNION ALL
SELECT NULL, NULL, NULL, NULL, NULL, ttl_seconds, NULL, heartbeat_at, expires_at, heartbeat_interval_seconds FROM told
"""


class Found(NamedTuple):
    """The row of an item, and how it stood just before this beat. All is None where the service is not the caller's,
    and all but its key and status where the epoch differs."""

    instance_pk: int | None
    status: str | None
    expired: bool | None
    protected: bool | None
    lease: dict[str, Any] | None


def heartbeat(items: Sequence[Heartbeat], caller: Caller) -> list[Renewed | RegistryError]:
    """Renew leases; bring back those that had expired; apply reported statuses.

    Outcomes otherwise: NotOwner, LeaseSuperseded, InstanceNotFound (with the reason), InvalidInput (a repeated key).
    """
    return heartbeat_for_callers(submissions_of(caller, items), lock_timeout="1s")


def heartbeat_for_callers(asked: Sequence[Submission[Heartbeat]], lock_timeout: str) -> list[Renewed | RegistryError]:
    """`heartbeat`, of many callers in one batch. Raises OperationalError when a row is held for longer."""
    return each_once(asked, lambda once: heartbeat_once(once, lock_timeout))


def heartbeat_once(asked: Sequence[Submission[Heartbeat]], lock_timeout: str) -> list[Renewed | RegistryError]:
    """Beat; then ask the log about those without a row, and beat once more for those that have come back meanwhile."""
    outcomes = beat(asked, lock_timeout)
    missing = [place for place, outcome in enumerate(outcomes) if outcome is None]
    last = dict(
        zip(missing, changelog.read_last_lifecycle_kinds(key_of(asked[place]) for place in missing), strict=True)
    )
    back = [place for place in missing if last[place] == ChangeKind.REGISTERED]
    again = dict(zip(back, beat([asked[place] for place in back], lock_timeout) if back else [], strict=True))
    return [
        outcome or again.get(place) or InstanceNotFound.after(last[place]) for place, outcome in enumerate(outcomes)
    ]


def beat(asked: Sequence[Submission[Heartbeat]], lock_timeout: str) -> list[Renewed | RegistryError | None]:
    """One transaction. An outcome is None where there is no row.

    1. Lock the instances that report a status, before any lease.
    2. Lock the leases and beat. A sweep that holds one has expired it by the time we get it: then this beat brings it
       back. A sweep that comes later sees the beat.
    3. Apply the statuses, and append what readers see. A beat that changes nothing appends nothing, and its commit need
       not wait for the disk: what a crash takes back, the next beat restores.
    """
    with write_transaction(lock_timeout, synchronous_commit="off"):
        standing = reported_status.lock(asked)
        found = renew(asked)
        reports = {
            row.instance_pk: each.item.status
            for each, row in zip(asked, found, strict=True)
            if each.item.status and row and row.lease and row.instance_pk is not None
        }
        applied = reported_status.apply(standing, reports)
        news = [(each, row) for each, row in zip(asked, found, strict=True) if row and is_news(row, applied)]
        changelog.append_changes([event(each, row, row.instance_pk in applied) for each, row in news])
    return [outcome(each.item, row, applied) for each, row in zip(asked, found, strict=True)]


def renew(asked: Sequence[Submission[Heartbeat]]) -> list[Found | None]:
    """Lock and beat; by item, what was found."""
    with connection.cursor() as cursor:
        cursor.execute(BEAT, columns_of(asked) | {"epochs": column(each.item.epoch for each in asked)})
        rows = cursor.fetchall()
    common = {row[5]: common_members(*row[5:]) for row in rows if row[0] is None}
    found: list[Found | None] = [None] * len(asked)
    for place, instance_pk, status, expired, protected, ttl_seconds, epoch, *_ in rows:
        if place is not None:
            lease = None if ttl_seconds is None else common[ttl_seconds] | {"epoch": epoch}
            found[place] = Found(instance_pk, status, expired, protected, lease)
    return found


def common_members(
    ttl_seconds: int, _epoch: None, heartbeat_at: str, expires_at: str, heartbeat_interval_seconds: float
) -> dict[str, Any]:
    """Those that all leases of one TTL have in common."""
    return {
        "heartbeat_at": heartbeat_at,
        "expires_at": expires_at,
        "heartbeat_interval_seconds": heartbeat_interval_seconds,
        "ttl_seconds": ttl_seconds,
    }


def is_news(row: Found, applied: Mapping[int, bool]) -> bool:
    """Whether this beat changes something that a reader sees."""
    return bool(row.expired or row.protected or row.instance_pk in applied)


def event(asked: Submission[Heartbeat], row: Found, reported: bool) -> changelog.NewChange:
    return changelog.NewChange(
        ChangeKind.RECOVERED if row.expired or row.protected else ChangeKind.STATUS_CHANGED,
        asked.namespace,
        asked.service_name,
        asked.caller.actor,
        asked.instance_id,
        row.instance_pk,
        changed=["reported_status", "status"] if reported else None,
        reported=reported,
    )


def outcome(item: Heartbeat, row: Found | None, applied: Mapping[int, bool]) -> Renewed | RegistryError | None:
    if row is None:
        return None
    if row.instance_pk is None:
        return NotOwner()
    if row.lease is None or row.status is None:
        return LeaseSuperseded()
    shown = item.status if item.status and applied.get(row.instance_pk) else row.status
    return Renewed(shown, bool(row.expired), is_news(row, applied), row.lease)
