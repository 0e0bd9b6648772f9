"""Delete old changes from the log, except those that describe the present state."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from django.db import connection
from django.db.models import Count, Max, Value
from django.db.models.functions import Greatest

from service_registry.changelog.by_time import last_id_at
from service_registry.changelog.read import OWNER_KINDS
from service_registry.choices import ChangeKind
from service_registry.database.transactions import with_retries, write_transaction
from service_registry.models import Change, RegistryState
from service_registry.sql import CHANGE, literals

ROWS_PER_TRANSACTION = 5_000
# Held for one transaction of a pruner. Two pruners that alternated on the rows of one instance could leave its
# registration in the log and delete its deregistration.
PRUNE_LOCK = 0x5E41_0006

OLDER = "(statement_timestamp() - make_interval(secs => %(older_than_seconds)s::float8))"
PLAN = f"""
WITH old AS MATERIALIZED (SELECT {OLDER} AS cutoff, {last_id_at(OLDER)} AS until)
SELECT old.cutoff, (SELECT min(c.id) FROM {CHANGE} c), old.until FROM old
"""

SAME_SERVICE = "n.namespace = c.namespace AND n.service_name = c.service_name"
NEWEST_IS_BELOW = "(n.id * -1) >= -%(until)s::bigint"
FIRST = "ORDER BY (n.id * -1) LIMIT 1"
LAST_OF_SERVICE = f"(SELECT n.id FROM {CHANGE} n WHERE {SAME_SERVICE} AND {NEWEST_IS_BELOW} {FIRST})"
LAST_OF_INSTANCE = f"""(SELECT n.id FROM {CHANGE} n
    WHERE {SAME_SERVICE} AND n.instance_id = c.instance_id AND {NEWEST_IS_BELOW} {FIRST})"""
LAST_OF_OWNERS = f"""(SELECT n.id FROM {CHANGE} n
    WHERE {SAME_SERVICE} AND n.instance_id IS NULL AND {NEWEST_IS_BELOW}
        AND n.kind IN {literals(OWNER_KINDS)} {FIRST})"""

# The changes that no reader needs any more. Two groups are kept. The first are the newest change of the log and of each
# service: a reader that waits there would otherwise have to start over again and again. The second describes the
# state at the cutoff, so that every later moment can be shown: the last change of each instance that existed, and of
# each service its last change and the last one that names its owners.
OBSOLETE = f"""(c.id < (SELECT max(n.id) FROM {CHANGE} n) AND CASE
    WHEN c.service_name IS NULL OR c.kind = '{ChangeKind.SERVICE_DELETED}' THEN true
    WHEN c.id = {LAST_OF_SERVICE} THEN false
    WHEN c.instance_id IS NOT NULL THEN c.instance IS NULL OR c.id < {LAST_OF_INSTANCE}
    WHEN c.kind IN {literals(OWNER_KINDS)} THEN c.id < {LAST_OF_OWNERS}
    ELSE true END)"""

COUNT = f"SELECT count(*) FROM {CHANGE} c WHERE c.id > %(after)s AND c.id <= %(upto)s AND {OBSOLETE}"
DELETE = f"""
-- Locks rows of the log that no writer changes; appending waits for none of them.
DELETE FROM {CHANGE} c WHERE c.id > %(after)s AND c.id <= %(upto)s AND {OBSOLETE}
"""


@dataclass(frozen=True, slots=True)
class PrunePlan:
    """The range of changes to examine: ids from `first` to `until`.

    They are at or before `cutoff`, a time by the database's clock.
    """

    cutoff: datetime
    first: int
    until: int


@dataclass(frozen=True, slots=True)
class PruneStep:
    """The numbers of changes that a transaction examined and found obsolete."""

    examined: int
    obsolete: int


class PruneInProgress(Exception):
    """Another process prunes the log."""


def plan_pruning(older_than_seconds: float) -> PrunePlan:
    """Return the range of changes to examine."""
    with connection.cursor() as cursor:
        cursor.execute(PLAN, {"older_than_seconds": older_than_seconds})
        return PrunePlan(*cursor.fetchone())


def prune(plan: PrunePlan, rows_per_transaction: int = ROWS_PER_TRANSACTION) -> Iterator[PruneStep]:
    """Delete obsolete changes step by step, and yield each step after its commit.

    The caller may stop at any step.

    1. Note in a separate transaction that moments before the cutoff can no longer be shown. A reader of such a moment
       then sees the note in the same snapshot in which rows are missing.
    2. Go up the log by ranges of ids. The changes that a deregistration or purge made obsolete are deleted before
       that change itself, or with it, so the log is true wherever this stops. Appending takes no lock that this holds.

    Raises:
        PruneInProgress: another process prunes the log, at the beginning or later.
    """
    if plan.until >= plan.first:
        with write_transaction(lock_timeout="3s"):
            RegistryState.objects.update(pruned_before=Greatest("pruned_before", Value(plan.cutoff)))
    for after, upto, count in split_range(plan, rows_per_transaction):
        deleted = with_retries(lambda after=after, upto=upto: delete(after, upto, plan))  # type: ignore[misc]
        yield PruneStep(count, deleted)


def count_obsolete(plan: PrunePlan) -> Iterator[PruneStep]:
    """Yield the steps of `prune` without deleting anything."""
    for after, upto, count in split_range(plan, ROWS_PER_TRANSACTION):
        with connection.cursor() as cursor:
            cursor.execute(COUNT, {"after": after, "upto": upto, "until": plan.until})
            yield PruneStep(count, cursor.fetchone()[0])


def count_planned(plan: PrunePlan) -> int:
    """Count the changes to examine, in parts.

    One statement over a long log would pass its timeout.
    """
    return sum(count for _after, _upto, count in split_range(plan, 10 * ROWS_PER_TRANSACTION))


def split_range(plan: PrunePlan, max_rows: int) -> Iterator[tuple[int, int, int]]:
    """Split the range of ids into parts.

    Yields the id before each part, its last id, and its number of changes.
    """
    after = plan.first - 1
    while True:
        rows = Change.objects.filter(pk__gt=after, pk__lte=plan.until).order_by("pk")[:max_rows]
        part = rows.aggregate(upto=Max("pk"), count=Count("pk"))
        if part["upto"] is None:
            return
        yield after, part["upto"], part["count"]
        after = part["upto"]


def delete(after: int, upto: int, plan: PrunePlan) -> int:
    with write_transaction(lock_timeout="1s"), connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [PRUNE_LOCK])
        if not cursor.fetchone()[0]:
            raise PruneInProgress
        cursor.execute(DELETE, {"after": after, "upto": upto, "until": plan.until})
        return int(cursor.rowcount)
