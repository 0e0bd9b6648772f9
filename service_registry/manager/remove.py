"""remove: an operator takes all instances off that match, whoever owns them and whether or not they are listed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import connection
from pydantic import Field

from service_registry import changelog
from service_registry.caller import Caller
from service_registry.choices import State, Status
from service_registry.database.retries import with_retries
from service_registry.database.transactions import write_transaction
from service_registry.manager.deregister import delete, event
from service_registry.manager.locking import lock_instances
from service_registry.queries.filters import MATCHES, resolve_filters
from service_registry.schemas import InstanceFilters
from service_registry.schemas.fields import Namespace, ServiceName
from service_registry.sql import INSTANCE, INSTANCE_ROWS, RENEWED_AT, STATE, rfc3339


class Selection(InstanceFilters):
    """Which instances; what is left out does not thin them. Expired ones are among them unless `state` says else."""

    namespace: Namespace | None = None
    service_name: ServiceName | None = None
    silent_for_seconds: float | None = Field(
        default=None, ge=1, description="Not heard for so long, while the registry could hear."
    )

    def parameters(self) -> dict[str, Any]:
        """Those of SELECTED."""
        named = self.model_dump(include={"namespace", "service_name", "silent_for_seconds"})
        return resolve_filters(self, Status.values, State.values).parameters | named


@dataclass(frozen=True, slots=True)
class Selected:
    """An instance that matched. `heartbeat_at` is a text by the database's clock."""

    namespace: str
    service_name: str
    instance_id: str
    heartbeat_at: str


SELECTED = f"""({MATCHES}
    AND (%(namespace)s::text IS NULL OR s.namespace = %(namespace)s)
    AND (%(service_name)s::text IS NULL OR s.name = %(service_name)s)
    AND (%(silent_for_seconds)s::float8 IS NULL
        OR statement_timestamp() >= {RENEWED_AT} + make_interval(secs => %(silent_for_seconds)s::float8)))"""
SELECTED_ROWS = f"{INSTANCE_ROWS} JOIN {STATE} r ON r.id = 1"
COLUMNS = f"s.namespace, s.name, i.instance_id, {rfc3339('l.heartbeat_at')}"

COUNT = f"SELECT count(*), max(i.id) FROM {SELECTED_ROWS} WHERE {SELECTED}"
EXAMPLES = f"SELECT {COLUMNS} FROM {SELECTED_ROWS} WHERE {SELECTED} ORDER BY i.id LIMIT %(at_most)s"
CANDIDATES = f"""
SELECT i.id FROM {SELECTED_ROWS}
WHERE i.id > %(after)s AND i.id <= %(until)s AND {SELECTED} ORDER BY i.id LIMIT %(at_most)s
"""

LOCK = f"""
-- Locks the candidates, then their leases; one that is being written is waited for.
WITH wanted AS MATERIALIZED (SELECT service_id, instance_id FROM {INSTANCE} WHERE id = ANY (%s::bigint[])),
{lock_instances("UPDATE")}
SELECT count(*) FROM leased
"""

# Locks nothing: a statement of its own, which sees what those we waited for have written.
JUDGE = f"SELECT i.id, {COLUMNS} FROM {SELECTED_ROWS} WHERE i.id = ANY (%(pks)s::bigint[]) AND {SELECTED} ORDER BY i.id"


def preview(selection: Selection, at_most: int) -> tuple[int, list[Selected]]:
    """How many instances match now, and the first of them."""
    with connection.cursor() as cursor:
        cursor.execute(EXAMPLES, selection.parameters() | {"at_most": at_most})
        examples = [Selected(*row) for row in cursor.fetchall()]
    return counted(selection)[0], examples


def counted(selection: Selection) -> tuple[int, int]:
    """How many match, and the highest key among them."""
    with connection.cursor() as cursor:
        cursor.execute(COUNT, selection.parameters())
        count, highest = cursor.fetchone()
    return count, highest or 0


def remove(selection: Selection, reason: str, caller: Caller, at_most: int) -> Iterator[list[Selected]]:
    """Take off what matches, batch after batch, and yield whom each batch took off, once that is committed.

    Whoever stops taking batches stops the removal. What registers after the first batch is not touched, so that an
    instance that keeps coming back does not keep this going.

    Args:
        selection: which instances.
        reason: kept with the changes.
        caller: an operator; their actor stands in the changes.
        at_most: instances a transaction.
    """
    after, (_count, until) = 0, counted(selection)
    while pks := candidates(selection, after, until, at_most):
        yield with_retries(lambda pks=pks: remove_once(pks, selection, reason, caller))  # type: ignore[misc]
        after = pks[-1]


def candidates(selection: Selection, after: int, until: int, at_most: int) -> list[int]:
    with connection.cursor() as cursor:
        cursor.execute(CANDIDATES, selection.parameters() | {"after": after, "until": until, "at_most": at_most})
        return [pk for (pk,) in cursor.fetchall()]


def remove_once(pks: Sequence[int], selection: Selection, reason: str, caller: Caller) -> list[Selected]:
    """One transaction.

    1. Lock the instances, then their leases; a heartbeat or registration under way comes before us, and one that comes
       later finds no row.
    2. Judge again by the rows as locked: an instance that was heard of meanwhile may not match any more. Only an
       override that ends by its time is not held still by these locks; the status was right when it was judged.
    3. Delete, then append under the change lock.
    """
    with write_transaction(lock_timeout="3s"):
        with connection.cursor() as cursor:
            cursor.execute(LOCK, [list(pks)])
            cursor.execute(JUDGE, selection.parameters() | {"pks": list(pks)})
            rows = {pk: Selected(*row) for pk, *row in cursor.fetchall()}
        delete(list(rows))
        changelog.append_changes(
            [event(row, caller, reason, {"heartbeat_at": row.heartbeat_at}) for row in rows.values()]
        )
    return list(rows.values())
