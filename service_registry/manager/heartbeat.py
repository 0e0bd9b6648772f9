"""heartbeat: an instance says that it is still there, and may report a new status of itself."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db import connection

from service_registry import changes
from service_registry.caller import Caller
from service_registry.documents import EFFECTIVE_STATUS, INSTANCE, LEASE, LEASE_MEMBERS, OVERRIDE, SERVICE, STATE
from service_registry.exceptions import InstanceNotFound, LeaseSuperseded, NotOwner, RegistryError
from service_registry.manager import reported_status
from service_registry.manager.batch import (
    GROUPS,
    KEYS,
    Asked,
    asked_by,
    column,
    columns_of,
    each_once,
    key_of,
    split,
    write,
)
from service_registry.schemas import Beat


@dataclass(frozen=True, slots=True)
class Renewed:
    """The lease is renewed. `recovered` when the instance had expired and is listed again; `changed` when a reader sees
    a difference; `status` is effective."""

    status: str
    recovered: bool
    changed: bool
    lease: dict[str, Any]


NO_LEASE = ", ".join(["NULL"] * len(LEASE_MEMBERS))
BEAT = f"""
-- Locks leases, in the order of their keys. Instances whose status is reported are locked already.
WITH beat AS (
    SELECT * FROM unnest({KEYS}, {split("epochs")}::bigint[]) WITH ORDINALITY
        AS beat(namespace, service_name, instance_id, caller, epoch, position)
),
found AS MATERIALIZED (
    SELECT beat.position, beat.epoch, s.owners && {GROUPS.format(row="beat")} AS owned, i.id,
        {EFFECTIVE_STATUS} AS status
    FROM beat
    JOIN {SERVICE} s ON s.namespace = beat.namespace AND s.name = beat.service_name
    LEFT JOIN {INSTANCE} i ON i.service_id = s.id AND i.instance_id = beat.instance_id
    LEFT JOIN {OVERRIDE} o ON o.service_id = s.id AND o.instance_id = beat.instance_id
),
locked AS MATERIALIZED (
    SELECT found.position, l.instance_id, found.status, found.epoch IS NULL OR found.epoch = l.epoch AS current,
        l.expired_at IS NOT NULL AS expired, l.protected_at IS NOT NULL AS protected
    FROM found JOIN {LEASE} l ON l.instance_id = found.id
    WHERE found.owned
    ORDER BY l.instance_id
    FOR NO KEY UPDATE OF l
),
l AS (
    UPDATE {LEASE} l
    SET heartbeat_at = clock_timestamp(), beats = l.beats + 1, expired_at = NULL, protected_at = NULL
    FROM locked WHERE l.instance_id = locked.instance_id AND locked.current
    RETURNING l.*, locked.position, locked.status, locked.expired, locked.protected
)
-- What was found out of each item: an item that has a lease comes twice. No join here: the planner expects one row
-- where 500 come, and then compares each with each.
SELECT l.position - 1, true, l.instance_id, l.status, l.expired, l.protected, {", ".join(LEASE_MEMBERS.values())}
FROM l CROSS JOIN {STATE} r
UNION ALL
SELECT position - 1, true, instance_id, status, NULL, NULL, {NO_LEASE} FROM locked WHERE NOT current
UNION ALL
SELECT position - 1, owned, NULL, status, NULL, NULL, {NO_LEASE} FROM found
"""


@dataclass(slots=True)
class Found:
    """A beat's row: whose it is, and how it stood just before this beat. `lease` is None when the epoch differs, and
    `instance_pk` too when there is no such row."""

    owned: bool
    instance_pk: int | None
    status: str
    expired: bool | None
    protected: bool | None
    lease: dict[str, Any] | None
    reported: bool = field(default=False)

    @property
    def changed(self) -> bool:
        """Whether this beat changes something that a reader sees."""
        return bool(self.expired or self.protected or self.reported)


def heartbeat(items: Sequence[Beat], caller: Caller) -> list[Renewed | RegistryError]:
    """Renew leases; bring back those that had expired; apply reported statuses.

    Outcomes otherwise: NotOwner, LeaseSuperseded, InstanceNotFound (with the reason), InvalidInput (a repeated key).
    """
    return heartbeat_of_all(asked_by(caller, items), lock_timeout="1s")


def heartbeat_of_all(asked: Sequence[Asked[Beat]], lock_timeout: str) -> list[Renewed | RegistryError]:
    """`heartbeat`, of many callers in one batch. Raises OperationalError when a row is held for longer."""
    return each_once(asked, lambda once: heartbeat_once(once, lock_timeout))


def heartbeat_once(asked: Sequence[Asked[Beat]], lock_timeout: str) -> list[Renewed | RegistryError]:
    """Beat; then ask the log about those without a row, and beat once more for those that have come back meanwhile."""
    outcomes = beat(asked, lock_timeout)
    missing = [place for place, outcome in enumerate(outcomes) if outcome is None]
    last = dict(zip(missing, changes.last_arrivals(key_of(asked[place]) for place in missing), strict=True))
    back = [place for place in missing if last[place] == "registered"]
    again = dict(zip(back, beat([asked[place] for place in back], lock_timeout) if back else [], strict=True))
    return [
        outcome or again.get(place) or InstanceNotFound.after(last[place]) for place, outcome in enumerate(outcomes)
    ]


def beat(asked: Sequence[Asked[Beat]], lock_timeout: str) -> list[Renewed | RegistryError | None]:
    """One transaction. An outcome is None where there is no row.

    1. Lock the instances that report a status, before any lease.
    2. Lock the leases and beat. A sweep that holds one has expired it by the time we get it: then this beat brings it
       back. A sweep that comes later sees the beat.
    3. Apply the statuses, and append what readers see. A beat that changes nothing appends nothing, and its commit need
       not wait for the disk: what a crash takes back, the next beat restores.
    """
    with write(lock_timeout, synchronous_commit="off"):
        standing = reported_status.lock(asked)
        found = renew(asked)
        beaten = {place: row for place, row in found.items() if row.lease}
        reports = {
            row.instance_pk: status
            for place, row in beaten.items()
            if row.instance_pk is not None and (status := asked[place].item.status)
        }
        applied = reported_status.apply(standing, reports)
        for row in beaten.values():
            row.reported = row.instance_pk in applied
        changes.append([event for place, row in sorted(beaten.items()) for event in events(asked[place], row)])
    return [outcome(each.item, found.get(place), applied) for place, each in enumerate(asked)]


def renew(asked: Sequence[Asked[Beat]]) -> dict[int, Found]:
    with connection.cursor() as cursor:
        cursor.execute(BEAT, columns_of(asked) | {"epochs": column(each.item.epoch for each in asked)})
        rows = cursor.fetchall()
    found: dict[int, Found] = {}
    for place, owned, instance_pk, status, expired, protected, *lease in rows:
        if place not in found or instance_pk is not None:
            members = dict(zip(LEASE_MEMBERS, lease, strict=True)) if lease[0] else None
            found[place] = Found(owned, instance_pk, status, expired, protected, members)
    return found


def events(asked: Asked[Beat], row: Found) -> list[changes.Event]:
    if not row.changed:
        return []
    return [
        changes.Event(
            "recovered" if row.expired or row.protected else "status_changed",
            asked.namespace,
            asked.service_name,
            asked.caller.actor,
            asked.instance_id,
            row.instance_pk,
            changed=["reported_status", "status"] if row.reported else None,
            reported=row.reported,
        )
    ]


def outcome(item: Beat, row: Found | None, applied: dict[int, bool]) -> Renewed | RegistryError | None:
    if row is None:
        return None
    if not row.owned:
        return NotOwner()
    if row.instance_pk is None:
        return None
    if row.lease is None:
        return LeaseSuperseded()
    shown = item.status if item.status and applied.get(row.instance_pk) else row.status
    return Renewed(shown, bool(row.expired), row.changed, row.lease)
