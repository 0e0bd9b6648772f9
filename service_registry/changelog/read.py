"""Reading the log on from an index, which names a row of it."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db import connection

from service_registry.choices import ChangeKind
from service_registry.exceptions import IndexGone, InvalidInput
from service_registry.sql import CHANGE, STATE, rfc3339

INDEX = re.compile(r"([0-9a-f]{8})-([1-9][0-9]{0,18})", re.ASCII)
HIGHEST_PK = 2**63 - 1
# As many as are read, or answered, in one go: of the largest 25 MB.
CHANGES_PER_PAGE = 500

PUBLIC_MEMBERS = f"""
    'index', c.mark || '-' || c.id, 'at', {rfc3339("c.at")}, 'kind', c.kind, 'namespace', c.namespace,
    'service_name', c.service_name, 'instance_id', c.instance_id, 'instance', c.instance
"""
PRIVATE_MEMBERS = "'actor', c.actor, 'reason', c.reason"

COLUMNS = f"""
    c.id, c.mark || '-' || c.id AS index, c.kind, c.namespace, c.service_name, c.instance_id,
    CASE WHEN c.changed IS NULL THEN json_build_object({PUBLIC_MEMBERS})
        ELSE json_build_object({PUBLIC_MEMBERS}, 'changed', c.changed) END::text AS public,
    CASE WHEN c.evidence IS NULL THEN json_build_object({PRIVATE_MEMBERS})
        ELSE json_build_object({PRIVATE_MEMBERS}, 'evidence', c.evidence) END::text AS private
"""


@dataclass(frozen=True, slots=True)
class RecordedChange:
    """A change as it stands in the log. `public` is its JSON text for every reader; `private` that of an object with
    its author, reason and evidence. `namespace` and `service_name` are None for rows of the log itself."""

    pk: int
    index: str
    kind: str
    namespace: str | None
    service_name: str | None
    instance_id: str | None
    public: str
    private: str

    @property
    def full(self) -> str:
        """The JSON text for those who may see who did it and why."""
        return f"{self.public[:-1]}, {self.private[1:]}"


STATE_OWNERS = {ChangeKind.SERVICE_CREATED, ChangeKind.OWNERS_CHANGED, ChangeKind.SERVICE_DELETED}


def owners_in_evidence(change_kind: str, private: str | bytes) -> Sequence[str]:
    """The owners that a change gave its service, or that lost it; none where it states none. Whose the service is now
    is told by the service: this is for one that is gone."""
    if change_kind not in STATE_OWNERS:
        return ()
    owners: Sequence[str] = (json.loads(private).get("evidence") or {}).get("owners", ())
    return owners


# Pruning leaves old rows in place that say how things stand, between gaps: nobody can go on from there, but from the
# last of all, after which nothing was.
PRUNED_BEFORE = f"COALESCE((SELECT r.pruned_before FROM {STATE} r WHERE r.id = 1), '-infinity')"
IS_WHOLE_AFTER = f"""(c.at >= {PRUNED_BEFORE}
    OR c.id = (SELECT max(id) FROM {CHANGE}))"""
READ_AFTER = f"""
-- Locks nothing. One row of nulls when the index is good and nothing came after it, none when it is not.
SELECT later.* FROM (SELECT FROM {CHANGE} c WHERE c.id = %(pk)s AND c.mark = %(mark)s AND {IS_WHOLE_AFTER}) held
LEFT JOIN LATERAL (
    SELECT {COLUMNS} FROM {CHANGE} c
    WHERE c.id > %(pk)s
        AND (%(namespace)s::text IS NULL OR c.namespace = %(namespace)s)
        AND (%(services)s::text[] IS NULL OR c.service_name = ANY (%(services)s::text[]))
    ORDER BY c.id LIMIT %(limit)s
) later ON true
ORDER BY later.id
"""


def parse_index(index: str) -> tuple[str, int]:
    """The mark and the id of an index. Raises InvalidInput for a text that is none."""
    found = INDEX.fullmatch(index)
    if not found or int(found[2]) > HIGHEST_PK:
        raise InvalidInput.of_field("index", "index", "must be the index of an earlier answer")
    return found[1], int(found[2])


def read_after(
    index: str, limit: int, services: Sequence[str] = (), namespace: str | None = None
) -> list[RecordedChange]:
    """The changes after `index`, oldest first. One statement, and so one snapshot.

    The row that `index` names is looked up with them, and its mark compared: an index of a change that was lost in a
    failover or a restore, trimmed, or made by another registry is told thereby, and one that survived goes on.

    Args:
        index: `<mark>-<id>`, of an answer or a change.
        limit: changes at most.
        services: names of services, of which one must match; none, all, the rows of the log itself too.
        namespace: None, all.

    Raises:
        InvalidInput: the text is no index at all.
        IndexGone: no row of the log has this index, so the reader has to start over.
    """
    mark, pk = parse_index(index)
    parameters: dict[str, Any] = {
        "mark": mark,
        "pk": pk,
        "namespace": namespace,
        "services": list(services) or None,
        "limit": limit,
    }
    with connection.cursor() as cursor:
        cursor.execute(READ_AFTER, parameters)
        rows = cursor.fetchall()
    if not rows:
        raise IndexGone
    return [RecordedChange(*row) for row in rows if row[0] is not None]
