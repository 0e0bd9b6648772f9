"""Load a replica from the tables once, then read the changes that follow it."""

from collections.abc import Generator, Sequence
from contextlib import closing
from itertools import takewhile
from operator import itemgetter
from sys import intern
from typing import Any

from psycopg.errors import NoDataFound

from service_registry.changelog.read import COLUMNS, IS_WHOLE_AFTER, PRUNED_BEFORE, RecordedChange
from service_registry.replica.change_buffer import MAX_BYTES, MAX_CHANGES, take_fitting
from service_registry.replica.connection import FeedConnection
from service_registry.replica.store import Change, InstanceEntry, Replica, ServiceEntry
from service_registry.sql import (
    CHANGE,
    EFFECTIVE_STATUS,
    INSTANCE,
    INSTANCE_DOCUMENT,
    INSTANCE_ROWS,
    LOGGED_DOCUMENT,
    NEWEST_FIRST,
    SERVICE,
    STATE_NAME,
)

# One fetch is one round trip, which has a deadline: 200 of the largest changes, each with its instance twice, are 10
# MB.
ROWS_PER_FETCH = 200

# Index and data come from one snapshot. A snapshot that contains a change contains all changes before it, because each
# is committed before the next one gets its id.
BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
NEWEST_INDEX = f"SELECT mark || '-' || id, id FROM {CHANGE} ORDER BY id DESC LIMIT 1"
SERVICES = f"""
SELECT s.namespace, s.name, s.owners, last.index, last.id
FROM {SERVICE} s
LEFT JOIN LATERAL (
    SELECT c.mark || '-' || c.id AS index, c.id FROM {CHANGE} c
    WHERE c.namespace = s.namespace AND c.service_name = s.name ORDER BY {NEWEST_FIRST} LIMIT 1
) last ON true
"""
INSTANCES = f"""
SELECT s.namespace, s.name, i.instance_id, {INSTANCE_DOCUMENT}::text, {EFFECTIVE_STATUS}, {STATE_NAME}
FROM {INSTANCE_ROWS}
"""
FEED_COLUMNS = f"{COLUMNS}, {LOGGED_DOCUMENT}::text, c.instance->>'status', c.instance->>'state'"
CHANGES_AFTER = f"""
-- Locks nothing. The first column is whether the log still contains everything after the row. What was written after
-- the log had been read to its end is younger than that reading, and not pruned as long as the reading is younger than
-- the pruning's cutoff.
SELECT {IS_WHOLE_AFTER} OR statement_timestamp() - make_interval(secs => %(read_before)s) >= {PRUNED_BEFORE},
    {FEED_COLUMNS}
FROM {CHANGE} c WHERE c.id >= %(pk)s ORDER BY c.id LIMIT %(limit)s
"""
NEWEST_CHANGES = f"SELECT {IS_WHOLE_AFTER}, {FEED_COLUMNS} FROM {CHANGE} c ORDER BY c.id DESC LIMIT %(limit)s"
IS_LARGE = f"SELECT count(*) > 1000 FROM (SELECT FROM {INSTANCE} LIMIT 1001) counted"


def load_replica(
    connection: FeedConnection, max_changes: int = MAX_CHANGES, max_bytes: int = MAX_BYTES
) -> tuple[Replica, list[Change]]:
    """Load the catalogue, and the newest changes up to it for the change buffer.

    The changes are ordered oldest first. No change is from before a gap that pruning has left. At least one change
    is returned, whatever the bounds.

    Raises psycopg.Error, also when a part does not arrive within the connection's deadline.
    """
    connection.execute(BEGIN)
    try:
        replica = Replica(*read_newest_index(connection))
        for namespace, name, owners, last, last_pk in stream_rows(connection, SERVICES):
            replica.services[namespace, name] = ServiceEntry(tuple(map(intern, owners)), last, last_pk or 0)
        for namespace, name, instance_id, document, status, state in stream_rows(connection, INSTANCES):
            entry = build_entry(document, status, state)
            replica.services[namespace, name].put_instance(instance_id, entry)
        newest = read_newest_changes(connection, max_changes, max_bytes)
    except BaseException:
        connection.close()
        raise
    connection.execute("COMMIT")
    return replica, newest


def read_newest_changes(connection: FeedConnection, max_changes: int, max_bytes: int) -> list[Change]:
    """Read the newest changes backwards, so that the server sends few that do not fit."""
    with closing(stream_rows(connection, NEWEST_CHANGES, {"limit": max_changes})) as rows:
        changes = (build_change(row[1:]) for row in takewhile(itemgetter(0), rows))
        last = next(changes)
        return [last, *take_fitting(changes, max_changes, max_bytes)][::-1]


def read_newest_index(connection: FeedConnection) -> tuple[str, int]:
    """Return index and id of the newest change."""
    row = connection.execute(NEWEST_INDEX).fetchone()
    if row is None:
        raise NoDataFound("the log has no first row: manage.py migrate has not finished")
    return row[0], row[1]


def stream_rows(
    connection: FeedConnection, query: str, parameters: dict[str, Any] | None = None
) -> Generator[tuple[Any, ...]]:
    """Yield rows through a server-side cursor, so that neither side has all in memory."""
    with connection.cursor("load") as cursor:
        cursor.itersize = ROWS_PER_FETCH
        cursor.execute(query, parameters)  # put together from constants
        yield from cursor


def is_large(connection: FeedConnection) -> bool:
    """Return whether many processes that load it at once would burden the database."""
    row = connection.execute(IS_LARGE).fetchone()
    return row is not None and bool(row[0])


def read_changes(
    connection: FeedConnection, index: str, pk: int, limit: int, read_before_seconds: float
) -> list[Change] | None:
    """Read the changes after the one that `index` names.

    Returns None when the log does not contain all of them. The statement reads the known row again and compares its
    index: a log that lost its end, or was replaced by another one, does not have it, whatever happened to the
    server. Pruning may have kept the row and deleted changes after it. So a row that is older than the pruning's
    cutoff is good only if the log was read to its end, with this row as the last one, after the cutoff.

    Args:
        limit: how many changes at most.
        read_before_seconds: how long ago the log was read to its end.
    """
    parameters = {"pk": pk, "limit": limit + 1, "read_before": read_before_seconds}
    with connection.cursor() as cursor:
        rows = list(cursor.stream(CHANGES_AFTER, parameters))  # the deadline is for each row: a page may be 34 MB
    if not rows:
        return None
    (is_whole, *known), *later = rows
    if not is_whole or known[1] != index:
        return None
    return [build_change(row[1:]) for row in later]


def build_change(row: Sequence[Any]) -> Change:
    *recorded, document, status, state = row
    entry = None if document is None else build_entry(document, status, state)
    return Change.from_recorded(RecordedChange(*recorded), entry)


def build_entry(document: str, status: str, state: str) -> InstanceEntry:
    """Status and state are interned: a few strings are shared by all instances."""
    return InstanceEntry(document.encode(), intern(status), intern(state))
