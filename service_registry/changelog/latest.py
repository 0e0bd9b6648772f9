"""Look up the newest changes: of the log, of a service and of an instance."""

from collections.abc import Iterable

from service_registry.choices import ChangeKind
from service_registry.database.base import prepared_cursor
from service_registry.exceptions import NotMigrated
from service_registry.sql import CHANGE, NEWEST_FIRST, literals

NEWEST_INDEX = f"SELECT mark || '-' || id FROM {CHANGE} ORDER BY id DESC LIMIT 1"
NEWEST_INDEXES = f"""
SELECT ({NEWEST_INDEX}),
    (SELECT c.mark || '-' || c.id FROM {CHANGE} c WHERE c.namespace = %s AND c.service_name = %s
        ORDER BY {NEWEST_FIRST} LIMIT 1)
"""


def read_newest_index() -> str:
    """Return the index of the newest change.

    Read it before the data that it is sent with, in a separate statement.

    Raises NotMigrated while the log has no first row.
    """
    with prepared_cursor() as cursor:
        cursor.execute(NEWEST_INDEX)
        row = cursor.fetchone()
    if row is None:
        raise NotMigrated
    return str(row[0])


def read_newest_indexes(namespace: str, service_name: str) -> tuple[str, str | None]:
    """Return the index of the newest change, and that of a service's newest change.

    The latter is None when it has none. Raises NotMigrated while the log has no first row.
    """
    with prepared_cursor() as cursor:
        cursor.execute(NEWEST_INDEXES, [namespace, service_name])
        newest, newest_of_service = cursor.fetchone()
    if newest is None:
        raise NotMigrated
    return newest, newest_of_service


# The changes by which an instance comes and goes.
LIFECYCLE_KINDS = (ChangeKind.REGISTERED, ChangeKind.DEREGISTERED, ChangeKind.PURGED)
LAST_LIFECYCLE_KINDS = f"""
SELECT key.position, (
    SELECT c.kind FROM {CHANGE} c
    WHERE c.namespace = key.namespace AND c.service_name = key.service_name AND c.instance_id = key.instance_id
        AND c.kind IN {literals(LIFECYCLE_KINDS)}
    ORDER BY {NEWEST_FIRST} LIMIT 1)
FROM unnest(%s::text[], %s::text[], %s::text[]) WITH ORDINALITY AS key(namespace, service_name, instance_id, position)
ORDER BY key.position
"""


def read_last_lifecycle_kinds(keys: Iterable[tuple[str, str, str]]) -> list[str | None]:
    """Return the kind of the change with which each instance last came or went.

    Instances are named by (namespace, service name, instance id). The kind is `registered`, `deregistered` or
    `purged`; None when the log has no such change.
    """
    columns = [list(column) for column in zip(*keys, strict=True)]
    if not columns:
        return []
    with prepared_cursor() as cursor:
        cursor.execute(LAST_LIFECYCLE_KINDS, columns)
        return [kind for _position, kind in cursor.fetchall()]
