"""Taking old changes out of the log, but for those that still say how things stand."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from django.db import connection

from service_registry.changelog.by_time import last_at
from service_registry.database.retries import with_retries
from service_registry.database.transactions import write_transaction
from service_registry.sql import CHANGE, STATE

ROWS_A_TRANSACTION = 5_000
# Held for a transaction by whoever prunes: two that took turns at the rows of one instance could leave its arrival in
# the log and take its leaving out.
PRUNE_LOCK = 0x5E41_0006

OLDER = "(statement_timestamp() - make_interval(secs => %(older_than_seconds)s::float8))"
PLAN = f"""
WITH old AS MATERIALIZED (SELECT {OLDER} AS cutoff, {last_at(OLDER)} AS until)
SELECT old.cutoff, (SELECT min(c.id) FROM {CHANGE} c), old.until FROM old
"""

SAME_SERVICE = "n.namespace = c.namespace AND n.service_name = c.service_name"
NEWEST_IS_BELOW = "(n.id * -1) >= -%(until)s::bigint"
FIRST = "ORDER BY (n.id * -1) LIMIT 1"
LAST_OF_SERVICE = f"(SELECT n.id FROM {CHANGE} n WHERE {SAME_SERVICE} AND {NEWEST_IS_BELOW} {FIRST})"
LAST_OF_INSTANCE = f"""(SELECT n.id FROM {CHANGE} n
    WHERE {SAME_SERVICE} AND n.instance_id = c.instance_id AND {NEWEST_IS_BELOW} {FIRST})"""
LAST_WORD_ON_OWNERS = f"""(SELECT n.id FROM {CHANGE} n
    WHERE {SAME_SERVICE} AND n.instance_id IS NULL AND {NEWEST_IS_BELOW}
        AND n.kind IN ('service_created', 'owners_changed', 'service_deleted') {FIRST})"""

# What no reader needs any more. Kept are the end of the log and of each service (a reader that waits there would be
# sent back and forth), and what was true at the cutoff, so that every later moment can be shown: of each instance that
# was there its last change, of each service its last change and the last word on its owners.
OBSOLETE = f"""(c.id < (SELECT max(n.id) FROM {CHANGE} n) AND CASE
    WHEN c.service_name IS NULL OR c.kind = 'service_deleted' THEN true
    WHEN c.id = {LAST_OF_SERVICE} THEN false
    WHEN c.instance_id IS NOT NULL THEN c.instance IS NULL OR c.id < {LAST_OF_INSTANCE}
    WHEN c.kind IN ('service_created', 'owners_changed') THEN c.id < {LAST_WORD_ON_OWNERS}
    ELSE true END)"""

REACH = f"""
SELECT max(id), count(*) FROM (
    SELECT c.id FROM {CHANGE} c WHERE c.id > %(after)s AND c.id <= %(until)s ORDER BY c.id LIMIT %(at_most)s) reached
"""
COUNT = f"SELECT count(*) FROM {CHANGE} c WHERE c.id > %(after)s AND c.id <= %(reach)s AND {OBSOLETE}"
DELETE = f"""
-- Locks rows of the log that nobody writes to; appending waits for none of them.
DELETE FROM {CHANGE} c WHERE c.id > %(after)s AND c.id <= %(reach)s AND {OBSOLETE}
"""
NOTE = f"UPDATE {STATE} SET pruned_before = GREATEST(pruned_before, %s)"


@dataclass(frozen=True, slots=True)
class PrunePlan:
    """The changes with the ids from `first` to `until` are at or before `cutoff`, a time by the database's clock."""

    cutoff: datetime
    first: int
    until: int


@dataclass(frozen=True, slots=True)
class PruneStep:
    """So many changes were looked at in a transaction, and of those so many were spent."""

    examined: int
    obsolete: int


class PruneInProgress(Exception):
    """Another process is at it."""


def plan_pruning(older_than_seconds: float) -> PrunePlan:
    """What there is to look at."""
    with connection.cursor() as cursor:
        cursor.execute(PLAN, {"older_than_seconds": older_than_seconds})
        return PrunePlan(*cursor.fetchone())


def prune(planned: PrunePlan, rows_a_transaction: int = ROWS_A_TRANSACTION) -> Iterator[PruneStep]:
    """Delete what is spent, step after step, and yield each once it is committed. Whoever stops taking steps stops it.

    1. Say, in a transaction of its own, that moments before the cutoff cannot be shown any more: whoever reads of one
       while rows go finds that out in the snapshot in which the rows are missing.
    2. Go up the log by ranges of ids. What an instance's leaving made spent goes before, or with, the leaving itself,
       so that the log is true wherever this stops. Appending takes no lock that this holds.

    Raises:
        PruneInProgress: by another process, at the beginning or later.
    """
    if planned.until >= planned.first:
        with write_transaction(lock_timeout="3s"), connection.cursor() as cursor:
            cursor.execute(NOTE, [planned.cutoff])
    for after, upto, count in ranges(planned, rows_a_transaction):
        yield PruneStep(count, with_retries(lambda after=after, upto=upto: delete(after, upto, planned)))  # type: ignore[misc]


def count_obsolete(planned: PrunePlan, rows_a_transaction: int = ROWS_A_TRANSACTION) -> Iterator[PruneStep]:
    """The steps of `prune`, with nothing deleted."""
    for after, upto, count in ranges(planned, rows_a_transaction):
        with connection.cursor() as cursor:
            cursor.execute(COUNT, {"after": after, "reach": upto, "until": planned.until})
            yield PruneStep(count, cursor.fetchone()[0])


def count_planned(planned: PrunePlan) -> int:
    """How many changes there are to look at. A long log is not counted in one statement, which would be given up."""
    return sum(count for _after, _upto, count in ranges(planned, 10 * ROWS_A_TRANSACTION))


def ranges(planned: PrunePlan, at_most: int) -> Iterator[tuple[int, int, int]]:
    """From one id, exclusively, to another, and so many changes between them: at most so many."""
    after: int | None = planned.first - 1
    while after is not None:
        with connection.cursor() as cursor:
            cursor.execute(REACH, {"after": after, "until": planned.until, "at_most": at_most})
            upto, count = cursor.fetchone()
        if upto is not None:
            yield after, upto, count
        after = upto


def delete(after: int, upto: int, planned: PrunePlan) -> int:
    with write_transaction(lock_timeout="1s"), connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [PRUNE_LOCK])
        if not cursor.fetchone()[0]:
            raise PruneInProgress
        cursor.execute(DELETE, {"after": after, "reach": upto, "until": planned.until})
        return int(cursor.rowcount)
