"""Filling a replica: once from the tables, as they stand at an index, and from then on from the log."""

from collections.abc import Generator, Sequence
from contextlib import closing
from itertools import takewhile
from operator import itemgetter
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

# One fetch is one exchange, which has a deadline: 200 of the largest instances, each told twice, are 10 MB.
ROWS_A_FETCH = 200

# Index and data come from one snapshot. It cannot hold a change without all those before it, since each is committed
# before the next gets its id.
BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
END = f"SELECT mark || '-' || id, id FROM {CHANGE} ORDER BY id DESC LIMIT 1"
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
FED = f"""
{COLUMNS}, {LOGGED_DOCUMENT}::text, c.instance->>'status', c.instance->>'state',
CASE WHEN c.kind IN ('service_created', 'owners_changed', 'service_deleted') THEN c.evidence->'owners' END
"""
# What was written after the log had been read to its end is younger than that reading, and not pruned while that is.
AFTER = f"""
-- Locks nothing. First, whether all is there that came after the row.
SELECT {IS_WHOLE_AFTER} OR statement_timestamp() - make_interval(secs => %(read_before)s) >= {PRUNED_BEFORE}, {FED}
FROM {CHANGE} c WHERE c.id >= %(pk)s ORDER BY c.id LIMIT %(at_most)s
"""
NEWEST = f"SELECT {IS_WHOLE_AFTER}, {FED} FROM {CHANGE} c ORDER BY c.id DESC LIMIT %(at_most)s"
IS_LARGE = f"SELECT count(*) > 1000 FROM (SELECT FROM {INSTANCE} LIMIT 1001) counted"

# Few words stand for many: one object each.
WORDS: dict[str, str] = {}


def word(text: str) -> str:
    return WORDS.setdefault(text, text)


def load_replica(
    connection: FeedConnection, at_most: int = MAX_CHANGES, at_most_bytes: int = MAX_BYTES
) -> tuple[Replica, list[Change]]:
    """The catalogue, and the newest of the log up to it, which those who come back soon go on from: oldest first, none
    from before a gap that pruning has left, and so many and so much text at most, but for the last.

    Raises psycopg.Error, also when a part does not arrive within the connection's deadline.
    """
    connection.execute(BEGIN)
    try:
        replica = Replica(*read_newest_index(connection))
        for namespace, name, owners, last, last_pk in streamed(connection, SERVICES):
            replica.services[namespace, name] = ServiceEntry(tuple(map(word, owners)), last, last_pk or 0)
        for namespace, name, instance_id, document, status, state in streamed(connection, INSTANCES):
            entry = InstanceEntry(document.encode(), word(status), word(state))
            replica.services[namespace, name].put_instance(instance_id, entry)
        newest = newest_of(connection, at_most, at_most_bytes)
    except BaseException:
        connection.close()
        raise
    connection.execute("COMMIT")
    return replica, newest


def newest_of(connection: FeedConnection, at_most: int, at_most_bytes: int) -> list[Change]:
    """They are read from the last on, so that the server is not asked for what does not fit."""
    with closing(streamed(connection, NEWEST, {"at_most": at_most})) as found:
        changes = (fed(row[1:]) for row in takewhile(itemgetter(0), found))
        last = next(changes)
        return [last, *take_fitting(changes, at_most, at_most_bytes)][::-1]


def read_newest_index(connection: FeedConnection) -> tuple[str, int]:
    found = rows(connection, END)
    if not found:
        raise NoDataFound("the log has no first row: manage.py migrate has not finished")
    return found[0][0], found[0][1]


def streamed(
    connection: FeedConnection, query: str, parameters: dict[str, Any] | None = None
) -> Generator[tuple[Any, ...]]:
    """The rows of a query through a cursor on the server, so that none of us ever holds them all."""
    with connection.cursor("load") as cursor:
        cursor.itersize = ROWS_A_FETCH
        cursor.execute(query, parameters)  # put together from constants
        yield from cursor


def rows(connection: FeedConnection, query: str) -> list[tuple[Any, ...]]:
    return connection.execute(query).fetchall()


def is_large(connection: FeedConnection) -> bool:
    """Whether many processes that load at once would be felt."""
    return bool(rows(connection, IS_LARGE)[0][0])


def read_changes(
    connection: FeedConnection, index: str, pk: int, at_most: int, read_before_seconds: float
) -> list[Change] | None:
    """The changes after the one that `index` names, at most so many; None when the log does not hold all of them.

    The row that is known already is read again with each, and its index compared: a log that lost its end, or was
    replaced by another, is told by that, whatever happened to the server. Pruning may have kept it, and not what
    followed: where it is older than what is pruned, the log must have been read to its end, with this row as the last,
    since then.

    Args:
        read_before_seconds: how long ago that was.
    """
    parameters = {"pk": pk, "at_most": at_most + 1, "read_before": read_before_seconds}
    with connection.cursor() as cursor:
        found = list(cursor.stream(AFTER, parameters))  # the deadline is for each row: a page may be 25 MB
    if not found:
        return None
    (whole, *first), *later = found
    if not whole or first[1] != index:
        return None
    return [fed(row[1:]) for row in later]


def fed(row: Sequence[Any]) -> Change:
    *recorded, document, status, state, owners = row
    entry = None if document is None else InstanceEntry(document.encode(), word(status), word(state))
    return Change.from_recorded(RecordedChange(*recorded), entry, owners)
