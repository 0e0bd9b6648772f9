"""Where the log ends: as a whole, of one service, and how instances last came or went."""

from collections.abc import Iterable

from django.db import connection

from service_registry.choices import ChangeKind
from service_registry.exceptions import NotMigrated
from service_registry.sql import CHANGE, NEWEST_FIRST

END = f"SELECT mark || '-' || id FROM {CHANGE} ORDER BY id DESC LIMIT 1"
ENDS = f"""
SELECT ({END}),
    (SELECT c.mark || '-' || c.id FROM {CHANGE} c WHERE c.namespace = %s AND c.service_name = %s
        ORDER BY {NEWEST_FIRST} LIMIT 1)
"""


def read_newest_index() -> str:
    """The index of the newest change. Read it before the data that is sent with it, in a statement of its own.

    Raises NotMigrated while the log has not begun.
    """
    with connection.cursor() as cursor:
        cursor.execute(END)
        row = cursor.fetchone()
    if row is None:
        raise NotMigrated
    return str(row[0])


def read_newest_indexes(namespace: str, service_name: str) -> tuple[str, str | None]:
    """The index of the newest change, and of the newest of one service or None where it has none.

    Raises NotMigrated while the log has not begun.
    """
    with connection.cursor() as cursor:
        cursor.execute(ENDS, [namespace, service_name])
        newest, newest_of_service = cursor.fetchone()
    if newest is None:
        raise NotMigrated
    return newest, newest_of_service


LAST_LIFECYCLE_KINDS = f"""
SELECT key.position, (
    SELECT c.kind FROM {CHANGE} c
    WHERE c.namespace = key.namespace AND c.service_name = key.service_name AND c.instance_id = key.instance_id
        AND c.kind IN ('{ChangeKind.REGISTERED}', '{ChangeKind.DEREGISTERED}', '{ChangeKind.PURGED}')
    ORDER BY {NEWEST_FIRST} LIMIT 1)
FROM unnest(%s::text[], %s::text[], %s::text[]) WITH ORDINALITY AS key(namespace, service_name, instance_id, position)
ORDER BY key.position
"""


def read_last_lifecycle_kinds(keys: Iterable[tuple[str, str, str]]) -> list[str | None]:
    """For each (namespace, service name, instance id) how it last came or went: `registered`, `deregistered`,
    `purged`, or None when the log has never seen it."""
    columns = [list(column) for column in zip(*keys, strict=True)]
    if not columns:
        return []
    with connection.cursor() as cursor:
        cursor.execute(LAST_LIFECYCLE_KINDS, columns)
        return [kind for _position, kind in cursor.fetchall()]
