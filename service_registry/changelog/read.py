"""Read the changes after an index, which names a row of the log."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db import connection

from service_registry.caller import Caller
from service_registry.choices import ChangeKind
from service_registry.exceptions import IndexGone, InvalidInput
from service_registry.sql import CHANGE, STATE, literals, rfc3339

INDEX = re.compile(r"([0-9a-f]{8})-([1-9][0-9]{0,18})", re.ASCII)
HIGHEST_PK = 2**63 - 1
# The number of changes that are read, or sent in one response; 500 of the largest are 34 MB.
CHANGES_PER_PAGE = 500

PUBLIC_MEMBERS = f"""
    'index', c.mark || '-' || c.id, 'at', {rfc3339("c.at")}, 'kind', c.kind, 'namespace', c.namespace,
    'service_name', c.service_name, 'instance_id', c.instance_id, 'instance', c.instance
"""
PRIVATE_MEMBERS = "'actor', c.actor, 'reason', c.reason"

# The changes whose evidence names the owners.
OWNER_KINDS = (ChangeKind.SERVICE_CREATED, ChangeKind.OWNERS_CHANGED, ChangeKind.SERVICE_DELETED)
# The owners of the service at the time of the change, which may author, reason and evidence be shown to: those that the
# log named last, up to the change itself. Null where pruning has deleted what named them.
OWNERS = f"""(
    SELECT ARRAY(SELECT jsonb_array_elements_text(n.evidence -> 'owners')) FROM {CHANGE} n
    WHERE n.namespace = c.namespace AND n.service_name = c.service_name AND n.instance_id IS NULL
        AND n.kind IN {literals(OWNER_KINDS)} AND (n.id * -1) >= (c.id * -1)
    ORDER BY (n.id * -1) LIMIT 1)"""

COLUMNS = f"""
    c.id, c.mark || '-' || c.id AS index, c.kind, c.namespace, c.service_name, c.instance_id,
    CASE WHEN c.changed IS NULL THEN json_build_object({PUBLIC_MEMBERS})
        ELSE json_build_object({PUBLIC_MEMBERS}, 'changed', c.changed) END::text AS public,
    CASE WHEN c.evidence IS NULL THEN json_build_object({PRIVATE_MEMBERS})
        ELSE json_build_object({PRIVATE_MEMBERS}, 'evidence', c.evidence) END::text AS private,
    {OWNERS} AS owners
"""


@dataclass(frozen=True, slots=True)
class RecordedChange:
    """A change that was read from the log.

    `public` is its JSON text for every reader; `private` that of an object with author, reason and evidence.
    `owners` are those of the service at the time of the change, None where the log does not say.
    `namespace` and `service_name` are None for rows about the log itself.
    """

    pk: int
    index: str
    kind: str
    namespace: str | None
    service_name: str | None
    instance_id: str | None
    public: str
    private: str
    owners: Sequence[str] | None

    @property
    def full(self) -> str:
        """The JSON text for readers who may see author, reason and evidence."""
        return f"{self.public[:-1]}, {self.private[1:]}"

    def text_for(self, caller: Caller) -> str:
        """Return the JSON text with what the caller may see."""
        return self.full if caller.may_read_actors(self.owners or ()) else self.public


# Pruning leaves old rows that describe the present state, with gaps between them. A reader cannot resume from such a
# row, except from the newest row of all, which nothing follows.
PRUNED_BEFORE = f"COALESCE((SELECT r.pruned_before FROM {STATE} r WHERE r.id = 1), '-infinity')"
IS_WHOLE_AFTER = f"""(c.at >= {PRUNED_BEFORE}
    OR c.id = (SELECT max(id) FROM {CHANGE}))"""
READ_AFTER = f"""
-- Locks nothing. Returns one row of nulls when the index is valid and nothing follows it, no row when it is invalid.
SELECT later.* FROM (SELECT FROM {CHANGE} c WHERE c.id = %(pk)s AND c.mark = %(mark)s AND {IS_WHOLE_AFTER}) named
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
    """Return mark and id of an index.

    Raises InvalidInput when the text is not an index.
    """
    found = INDEX.fullmatch(index)
    if not found or int(found[2]) > HIGHEST_PK:
        raise InvalidInput.of_field("index", "index", "must be the index of an earlier answer")
    return found[1], int(found[2])


def read_after(
    index: str, limit: int, services: Sequence[str] = (), namespace: str | None = None
) -> list[RecordedChange]:
    """Return the changes after `index`, oldest first.

    One statement, and so one snapshot. The statement also looks up the row that `index` names and compares its
    mark. This detects an index whose change was lost in a failover or a restore, was pruned, or belongs to another
    registry.

    Args:
        index: `<mark>-<id>`, from a response or a change.
        limit: how many changes at most.
        services: names of services; when empty, all changes match, those about the log itself, too.
        namespace: a namespace; None means all.

    Raises:
        InvalidInput: the text is not an index.
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
