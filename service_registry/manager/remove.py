"""Remove: an operator deregisters all instances that match, of any owner."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from django.db import connection
from pydantic import Field

from service_registry import changelog
from service_registry.caller import Caller
from service_registry.choices import State, Status
from service_registry.database.transactions import with_retries, write_transaction
from service_registry.manager.deregister import delete_instances, to_change
from service_registry.manager.locking import lock_instances
from service_registry.queries.filters import MATCHES, resolve_filters
from service_registry.schemas import InstanceFilters
from service_registry.schemas.fields import Namespace, ServiceName
from service_registry.sql import INSTANCE, INSTANCE_ROWS, RENEWED_AT, STATE, rfc3339


class Selection(InstanceFilters):
    """The filters of a removal. Without `state`, expired instances match too."""

    namespace: Namespace | None = None
    service_name: ServiceName | None = None
    silent_for_seconds: float | None = Field(
        default=None,
        ge=1,
        description="Seconds without a heartbeat, while the registry could receive them; not of permanent ones.",
    )

    def parameters(self) -> dict[str, Any]:
        """Return the parameters of SELECTED."""
        named = self.model_dump(include={"namespace", "service_name", "silent_for_seconds"})
        return resolve_filters(self, Status.values, State.values).parameters | named


@dataclass(frozen=True, slots=True)
class Selected:
    """An instance that matches. `heartbeat_at` is RFC 3339, by the database's clock."""

    namespace: str
    service_name: str
    instance_id: str
    heartbeat_at: str


SELECTED = f"""({MATCHES}
    AND (%(namespace)s::text IS NULL OR s.namespace = %(namespace)s)
    AND (%(service_name)s::text IS NULL OR s.name = %(service_name)s)
    AND (%(silent_for_seconds)s::float8 IS NULL OR l.ttl_seconds IS NOT NULL
        AND statement_timestamp() >= {RENEWED_AT} + make_interval(secs => %(silent_for_seconds)s::float8)))"""
SELECTED_ROWS = f"{INSTANCE_ROWS} JOIN {STATE} r ON r.id = 1"
COLUMNS = f"s.namespace, s.name, i.instance_id, {rfc3339('l.heartbeat_at')}"

COUNT = f"SELECT count(*), max(i.id) FROM {SELECTED_ROWS} WHERE {SELECTED}"
EXAMPLES = f"SELECT {COLUMNS} FROM {SELECTED_ROWS} WHERE {SELECTED} ORDER BY i.id LIMIT %(at_most)s"
CANDIDATES = f"""
SELECT i.id FROM {SELECTED_ROWS}
WHERE i.id > %(after)s AND i.id <= %(until)s AND {SELECTED} ORDER BY i.id LIMIT %(at_most)s
"""

LOCK = f"""
-- Locks the candidates, then their leases, and waits for those that other transactions have locked.
WITH wanted AS MATERIALIZED (SELECT service_id, instance_id FROM {INSTANCE} WHERE id = ANY (%s::bigint[])),
{lock_instances("UPDATE")}
SELECT count(*) FROM leased
"""

# Locks nothing. It is a separate statement, which sees what was written while LOCK waited.
MATCH_AGAIN = (
    f"SELECT i.id, {COLUMNS} FROM {SELECTED_ROWS} WHERE i.id = ANY (%(pks)s::bigint[]) AND {SELECTED} ORDER BY i.id"
)


def preview(selection: Selection, at_most: int) -> tuple[int, list[Selected]]:
    """Return the number of instances that match now, and the first `at_most` of them."""
    with connection.cursor() as cursor:
        cursor.execute(EXAMPLES, selection.parameters() | {"at_most": at_most})
        examples = [Selected(*row) for row in cursor.fetchall()]
    return count_matches(selection)[0], examples


def count_matches(selection: Selection) -> tuple[int, int]:
    """Return how many instances match, and the highest primary key among them."""
    with connection.cursor() as cursor:
        cursor.execute(COUNT, selection.parameters())
        count, highest = cursor.fetchone()
    return count, highest or 0


def remove(selection: Selection, reason: str, caller: Caller, at_most: int) -> Iterator[list[Selected]]:
    """Deregister what matches in batches; yield each batch after its commit.

    The removal stops when the iterator is closed. Instances that register after the start are not removed, so that one
    which comes back again and again does not keep it running.

    Args:
        selection: the filters.
        reason: kept with the changes.
        caller: the operator, who is the actor of the changes.
        at_most: instances in one transaction.
    """
    after, (_count, until) = 0, count_matches(selection)
    while pks := find_candidates(selection, after, until, at_most):
        yield with_retries(partial(remove_batch, pks, selection, reason, caller))
        after = pks[-1]


def find_candidates(selection: Selection, after: int, until: int, at_most: int) -> list[int]:
    with connection.cursor() as cursor:
        cursor.execute(CANDIDATES, selection.parameters() | {"after": after, "until": until, "at_most": at_most})
        return [pk for (pk,) in cursor.fetchall()]


def remove_batch(pks: Sequence[int], selection: Selection, reason: str, caller: Caller) -> list[Selected]:
    """Deregister the candidates that still match, in one transaction.

    1. Lock the instances, then their leases. A heartbeat or registration under way ends before; a later one finds no
       row.
    2. Match again by the locked rows: an instance that has sent a heartbeat meanwhile may not match any more. Only an
       override that expires is not kept by these locks; the status was right when it was read.
    3. Delete, then append under the change lock.
    """
    with write_transaction(lock_timeout="3s"):
        with connection.cursor() as cursor:
            cursor.execute(LOCK, [list(pks)])
            cursor.execute(MATCH_AGAIN, selection.parameters() | {"pks": list(pks)})
            rows = {pk: Selected(*row) for pk, *row in cursor.fetchall()}
        delete_instances(list(rows))
        changelog.append_changes(
            [to_change(row, caller, reason, {"heartbeat_at": row.heartbeat_at}) for row in rows.values()]
        )
    return list(rows.values())
