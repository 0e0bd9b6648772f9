"""Heartbeat: an instance renews its lease, and may report a new status."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from service_registry import changelog
from service_registry.caller import Caller
from service_registry.choices import ChangeKind
from service_registry.database.base import prepared_cursor
from service_registry.database.transactions import write_transaction
from service_registry.exceptions import InstanceNotFound, LeaseSuperseded, NotOwner, RegistryError
from service_registry.manager import reported_status
from service_registry.manager.batch import (
    ITEM_COLUMNS,
    REQUESTED_SERVICES,
    Submission,
    join_columns,
    join_optional_column,
    key_of,
    run_batch,
    split_parameter,
    submissions_of,
)
from service_registry.manager.renewal import LOCK_UNLOCKED, RENEWAL_TIMES, UNCHANGED_RENEWAL, common_members
from service_registry.schemas import Heartbeat
from service_registry.sql import EFFECTIVE_STATUS, INSTANCE, LEASE, OVERRIDE, STATE


class Renewed(NamedTuple):
    """A renewed lease.

    `status` is effective. `recovered` means that the instance had expired and is listed again, `changed` that readers
    see a difference.
    """

    status: str
    recovered: bool
    changed: bool
    lease: dict[str, Any]

    def again(self) -> "Renewed":
        """Return the result of the same heartbeat right after this one."""
        return self._replace(recovered=False, changed=False)


ITEMS = f"""
item AS (
    SELECT * FROM unnest({ITEM_COLUMNS}, {split_parameter("epochs")}::bigint[], {split_parameter("incarnations")},
            {split_parameter("statuses")})
        WITH ORDINALITY AS item(service_number, instance_id, epoch, incarnation, status, position)
)"""
# LIMIT keeps the condition on overrides inside, where only the index can serve it: the planner guesses few items, and
# could compare each with all overrides.
LEASES_OF_ITEMS = f"""
    item
    JOIN requested_service s ON s.number = item.service_number AND s.owned
    JOIN {INSTANCE} i ON i.service_id = s.id AND i.instance_id = item.instance_id
    JOIN {LEASE} l ON l.instance_id = i.id
    LEFT JOIN LATERAL (
        SELECT status FROM {OVERRIDE} o WHERE o.service_id = i.service_id AND o.instance_id = i.instance_id LIMIT 1
    ) o ON true
"""
IS_CURRENT = """
    COALESCE(item.epoch, l.epoch) = l.epoch
        AND COALESCE(item.incarnation, l.incarnation) IS NOT DISTINCT FROM l.incarnation
"""
RENEW_UNCHANGED = f"""
-- Renews where readers see no difference. Locks leases, and waits for no lock.
WITH {REQUESTED_SERVICES}, {ITEMS},
locked AS MATERIALIZED (
    SELECT item.position, l.instance_id, {EFFECTIVE_STATUS} AS status
    FROM {LEASES_OF_ITEMS}
    WHERE l.expired_at IS NULL AND l.protected_at IS NULL AND {IS_CURRENT}
        AND (item.status IS NULL OR item.status = i.reported_status AND i.pending_status IS NULL)
    {LOCK_UNLOCKED}
),
{UNCHANGED_RENEWAL}
UPDATE {LEASE} l SET heartbeat_at = renewal.at, beats = l.beats + 1
FROM locked, renewal WHERE l.instance_id = locked.instance_id
RETURNING locked.position - 1, locked.status, l.ttl_seconds, l.epoch, renewal.heartbeat_at, renewal.counted_from
"""

RENEW = f"""
-- Locks leases, in the order of their keys. Instances whose status is reported are locked already.
WITH {REQUESTED_SERVICES}, {ITEMS},
locked AS MATERIALIZED (
    SELECT item.position, l.instance_id, {EFFECTIVE_STATUS} AS status, {IS_CURRENT} AS current,
        l.expired_at IS NOT NULL AS expired, l.protected_at IS NOT NULL AS protected, l.ttl_seconds, l.epoch
    FROM {LEASES_OF_ITEMS}
    ORDER BY l.instance_id
    FOR NO KEY UPDATE OF l
),
-- The time is read once, when the last lease is locked.
renewal AS MATERIALIZED (
    SELECT {RENEWAL_TIMES} FROM (SELECT clock_timestamp() AS at, count(*) FROM locked) renewal, {STATE} r
),
renewed AS (
    UPDATE {LEASE} l
    SET heartbeat_at = renewal.at, beats = l.beats + 1, expired_at = NULL, protected_at = NULL
    FROM locked, renewal WHERE l.instance_id = locked.instance_id AND locked.current
)
-- An item without a row in the database gives no row here.
SELECT position - 1, instance_id, status, current, expired, protected, ttl_seconds, epoch, heartbeat_at, counted_from
FROM locked, renewal
UNION ALL
SELECT item.position - 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
FROM item JOIN requested_service s ON s.number = item.service_number WHERE NOT s.owned
"""


class LeaseRow(NamedTuple):
    """An item's row as it was just before this heartbeat.

    All fields are None where the caller does not own the service. `lease` is None where the epoch or the incarnation is
    not the current one.
    """

    instance_pk: int | None
    status: str | None
    expired: bool | None
    protected: bool | None
    lease: dict[str, Any] | None


def heartbeat(items: Sequence[Heartbeat], caller: Caller) -> list[Renewed | RegistryError]:
    """Renew leases, bring expired instances back, and apply reported statuses.

    Other outcomes: NotOwner, LeaseSuperseded, InstanceNotFound (with the reason), InvalidInput (a repeated key).
    """
    return heartbeat_for_callers(submissions_of(caller, items), lock_timeout="1s")


def heartbeat_for_callers(
    submissions: Sequence[Submission[Heartbeat]], lock_timeout: str
) -> list[Renewed | RegistryError]:
    """Run `heartbeat` for many callers in one batch.

    Raises OperationalError when another transaction locks a row for longer than `lock_timeout`.
    """
    return run_batch(submissions, lambda distinct: renew_distinct(distinct, lock_timeout))


def merge_heartbeats(first: Submission[Heartbeat], second: Submission[Heartbeat]) -> Submission[Heartbeat] | None:
    """Return the heartbeat that does what both do; None unless caller, epoch and incarnation are the same.

    The last status that was reported stands.
    """
    one, other = first.item, second.item
    if (first.caller, one.epoch, one.incarnation) != (second.caller, other.epoch, other.incarnation):
        return None
    return second if other.status or not one.status else first


def renew_distinct(submissions: Sequence[Submission[Heartbeat]], lock_timeout: str) -> list[Renewed | RegistryError]:
    """Renew a batch with distinct keys.

    Nearly all heartbeats change nothing that readers see. They need one statement, which waits for no lock, and no
    transaction. The others take the long way.
    """
    outcomes: list[Renewed | RegistryError | None] = [*renew_unchanged(submissions)]
    rest = [position for position, outcome in enumerate(outcomes) if outcome is None]
    others = renew_or_explain([submissions[position] for position in rest], lock_timeout) if rest else []
    by_position = dict(zip(rest, others, strict=True))
    return [outcome or by_position[position] for position, outcome in enumerate(outcomes)]


def renew_unchanged(submissions: Sequence[Submission[Heartbeat]]) -> list[Renewed | None]:
    """Renew the leases of which nothing else changes; None for all others."""
    with prepared_cursor() as cursor:
        cursor.execute(RENEW_UNCHANGED, to_parameters(submissions))
        rows = cursor.fetchall()
    found: list[Renewed | None] = [None] * len(submissions)
    common: dict[int | None, dict[str, Any]] = {}
    for position, status, ttl_seconds, epoch, *times in rows:
        if ttl_seconds not in common:
            common[ttl_seconds] = common_members(ttl_seconds, *times)
        found[position] = Renewed(status, False, False, common[ttl_seconds] | {"epoch": epoch})
    return found


def to_parameters(submissions: Sequence[Submission[Heartbeat]]) -> dict[str, str]:
    items = [submission.item for submission in submissions]
    return join_columns(submissions) | {
        "epochs": join_optional_column([item.epoch for item in items]),
        "incarnations": join_optional_column([item.incarnation for item in items]),
        "statuses": join_optional_column([item.status for item in items]),
    }


def renew_or_explain(submissions: Sequence[Submission[Heartbeat]], lock_timeout: str) -> list[Renewed | RegistryError]:
    """Renew the leases that exist, and explain by the log why others do not.

    1. Renew, in one transaction.
    2. Read the log for the items without a row.
    3. Renew once more those that have registered between 1 and 2.
    """
    outcomes = renew_and_report(submissions, lock_timeout)
    missing = [position for position, outcome in enumerate(outcomes) if outcome is None]
    kinds = changelog.read_last_lifecycle_kinds(key_of(submissions[position]) for position in missing)
    last = dict(zip(missing, kinds, strict=True))
    back = [position for position in missing if last[position] == ChangeKind.REGISTERED]
    again = renew_and_report([submissions[position] for position in back], lock_timeout) if back else []
    renewed = dict(zip(back, again, strict=True))
    return [
        outcome or renewed.get(position) or InstanceNotFound.after(last[position])
        for position, outcome in enumerate(outcomes)
    ]


def renew_and_report(
    submissions: Sequence[Submission[Heartbeat]], lock_timeout: str
) -> list[Renewed | RegistryError | None]:
    """Renew leases and apply reported statuses in one transaction.

    An outcome is None where there is no row.

    1. Lock the instances that report a status. They come before leases in the lock order.
    2. Lock the leases and renew them. A sweep that has locked a lease first has expired it when we get it, and this
       heartbeat brings it back. A sweep that comes later sees the heartbeat.
    3. Apply the statuses, and append what readers see. A heartbeat that changes nothing appends nothing, and its commit
       does not wait for the disk: the next heartbeat restores what a crash takes back.
    """
    with write_transaction(lock_timeout, synchronous_commit="off"):
        histories = reported_status.lock_reporting(submissions)
        rows = renew_leases(submissions)
        reports = {
            row.instance_pk: submission.item.status
            for submission, row in zip(submissions, rows, strict=True)
            if submission.item.status and row and row.lease and row.instance_pk is not None
        }
        applied = reported_status.apply_reports(histories, reports)
        changelog.append_changes(
            [
                to_change(submission, row, row.instance_pk in applied)
                for submission, row in zip(submissions, rows, strict=True)
                if row and is_visible(row, applied)
            ]
        )
    return [to_outcome(submission.item, row, applied) for submission, row in zip(submissions, rows, strict=True)]


def renew_leases(submissions: Sequence[Submission[Heartbeat]]) -> list[LeaseRow | None]:
    """Lock and renew the leases; return each item's row as it was before."""
    with prepared_cursor() as cursor:
        cursor.execute(RENEW, to_parameters(submissions))
        rows = cursor.fetchall()
    found: list[LeaseRow | None] = [None] * len(submissions)
    for position, instance_pk, status, current, expired, protected, ttl_seconds, epoch, *times in rows:
        lease = common_members(ttl_seconds, *times) | {"epoch": epoch} if current else None
        found[position] = LeaseRow(instance_pk, status, expired, protected, lease)
    return found


def is_visible(row: LeaseRow, applied: Mapping[int, bool]) -> bool:
    """Return whether this heartbeat changes something that readers see."""
    return bool(row.expired or row.protected or row.instance_pk in applied)


def to_change(submission: Submission[Heartbeat], row: LeaseRow, reported: bool) -> changelog.NewChange:
    return changelog.NewChange(
        ChangeKind.RECOVERED if row.expired or row.protected else ChangeKind.STATUS_CHANGED,
        submission.namespace,
        submission.service_name,
        submission.caller.actor,
        submission.instance_id,
        row.instance_pk,
        changed=["reported_status", "status"] if reported else None,
        reported=reported,
    )


def to_outcome(item: Heartbeat, row: LeaseRow | None, applied: Mapping[int, bool]) -> Renewed | RegistryError | None:
    if row is None:
        return None
    if row.instance_pk is None:
        return NotOwner()
    if row.lease is None or row.status is None:
        return LeaseSuperseded()
    status = item.status if item.status and applied.get(row.instance_pk) else row.status
    return Renewed(status, bool(row.expired), is_visible(row, applied), row.lease)
