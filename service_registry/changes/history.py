"""The log as people read it: by service, instance, kind, author and time, in pages, oldest first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import connection

from service_registry.caller import Caller
from service_registry.changes.moments import last_at
from service_registry.changes.reading import COLUMNS, HIGHEST_PK, Recorded
from service_registry.documents import CHANGE
from service_registry.exceptions import NotOwner, PermissionMissing, ServiceNotFound
from service_registry.models import Service
from service_registry.schemas import ChangesQuery

# A page that has to search ends after so many rows, with what it has found until there.
ROWS_SEARCHED = 20_000

SEARCHED = "c.id, c.kind, c.namespace, c.instance_id, c.actor"
LOG = f"""
SELECT {SEARCHED} FROM {CHANGE} c WHERE c.id > %(after)s AND c.id <= %(stop)s ORDER BY c.id LIMIT %(searched)s
"""
# Per namespace, since the indexes begin with it.
SERVICE = f"""
SELECT c.* FROM unnest(%(namespaces)s::text[]) AS space(name), LATERAL (
    SELECT {SEARCHED} FROM {CHANGE} c
    WHERE c.namespace = space.name AND c.service_name = %(service)s
        AND (%(instance_id)s::text IS NULL OR c.instance_id = %(instance_id)s)
        AND (c.id * -1) < -%(after)s::bigint AND (c.id * -1) >= -%(stop)s::bigint
    ORDER BY (c.id * -1) DESC LIMIT %(searched)s
) c ORDER BY c.id LIMIT %(searched)s
"""
FILTERS = """(%(namespaces)s::text[] IS NULL OR c.namespace = ANY (%(namespaces)s::text[]))
    AND (%(instance_id)s::text IS NULL OR c.instance_id = %(instance_id)s)
    AND (%(kinds)s::text[] IS NULL OR c.kind = ANY (%(kinds)s::text[]))
    AND (%(actor)s::text IS NULL OR c.actor = %(actor)s)"""


def found(scope: str) -> str:
    """The rows of a page and one more."""
    return f"""
SELECT {COLUMNS} FROM {CHANGE} c
WHERE c.id = ANY (ARRAY(SELECT c.id FROM ({scope}) c WHERE {FILTERS} ORDER BY c.id LIMIT %(limit)s + 1))
ORDER BY c.id
"""


def searched(scope: str) -> str:
    """How far the search has come, and through how many rows."""
    return f"SELECT max(c.id), count(*) FROM ({scope}) c"


NAMESPACES = f"""
-- Steps from one to the next by index: there are few, and many changes.
WITH RECURSIVE space(name) AS (
    SELECT min(namespace) FROM {CHANGE}
    UNION ALL
    SELECT (SELECT c.namespace FROM {CHANGE} c WHERE c.namespace > space.name ORDER BY c.namespace LIMIT 1)
    FROM space WHERE space.name IS NOT NULL
)
SELECT name FROM space WHERE name IS NOT NULL
"""
BOUNDS = f"""
SELECT {last_at("(%(since)s::timestamptz - interval '1 microsecond')")}, {last_at("%(until)s::timestamptz")}
"""


@dataclass(frozen=True, slots=True)
class Page:
    """`next` is the id from which the next page goes on, None at the end."""

    changes: list[Recorded]
    next: int | None


def history(query: ChangesQuery, caller: Caller, after: int | None = None, rows_searched: int = ROWS_SEARCHED) -> Page:
    """A page of the changes that match, from the id `after` on.

    Whoever may see all changes may ask for any; others for those of a service that they own, in the namespaces in which
    they own it. A page that has to search for what matches may be short, or empty, and still be followed by others.

    Raises:
        PermissionMissing: the caller sees own services alone, and names none.
        ServiceNotFound, NotOwner: likewise, of the service named.
    """
    namespaces = [query.namespace] if query.namespace else None
    if not caller.may("view_change"):
        namespaces = owned(query, caller)
    elif query.service and namespaces is None:
        namespaces = all_namespaces()
    scope = SERVICE if query.service else LOG
    asked = parameters(query, namespaces, rows_searched) | bounds(query, after)
    changes = [Recorded(*row) for row in rows(found(scope), asked)]
    if len(changes) > query.limit:
        return Page(changes[: query.limit], changes[query.limit - 1].pk)
    ((reached, count),) = rows(searched(scope), asked)
    return Page(changes, reached if count == asked["searched"] else None)


def owned(query: ChangesQuery, caller: Caller) -> list[str]:
    """The namespaces in which the caller owns the service asked for."""
    if query.service is None:
        raise PermissionMissing("view_change")
    services = Service.objects.filter(name=query.service)
    if query.namespace:
        services = services.filter(namespace=query.namespace)
    owners = dict(services.values_list("namespace", "owners"))
    if not owners:
        raise ServiceNotFound
    own = [namespace for namespace, names in owners.items() if caller.owns(names)]
    if not own:
        raise NotOwner
    return own


def all_namespaces() -> list[str]:
    return [name for (name,) in rows(NAMESPACES, {})]


def parameters(query: ChangesQuery, namespaces: Sequence[str] | None, rows_searched: int) -> dict[str, Any]:
    searches = query.kind or query.actor or (not query.service and (query.instance_id or namespaces))
    return {
        "namespaces": None if namespaces is None else list(namespaces),
        "service": query.service,
        "instance_id": query.instance_id,
        "kinds": query.kind or None,
        "actor": query.actor,
        "limit": query.limit,
        "searched": rows_searched if searches else query.limit + 1,
    }


def bounds(query: ChangesQuery, after: int | None) -> dict[str, int]:
    """The ids between which the page lies."""
    since, until = 0, HIGHEST_PK
    if query.since or query.until:
        ((first, last),) = rows(BOUNDS, {"since": query.since, "until": query.until})
        since, until = first if query.since else since, last if query.until else until
    return {"after": max(since, after or 0), "stop": until}


def rows(sql: str, parameters: Mapping[str, Any]) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return list(cursor.fetchall())
