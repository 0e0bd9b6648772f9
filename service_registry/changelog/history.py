"""The log as people read it: by service, instance, kind, author and time, in pages, oldest first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import connection

from service_registry.caller import Caller
from service_registry.changelog.by_time import last_at
from service_registry.changelog.latest import read_newest_index
from service_registry.changelog.read import COLUMNS, RecordedChange, parse_index
from service_registry.exceptions import NotOwner, PermissionMissing, ServiceNotFound
from service_registry.models import Service
from service_registry.schemas import ChangesQuery
from service_registry.sql import CHANGE

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


def reach(scope: str) -> str:
    """How far the search for a page goes, and through how many rows."""
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
class HistoryPage:
    """`next` is the id from which the next page goes on, None at the end; `read_at` the log's end, as an index."""

    changes: list[RecordedChange]
    next: int | None
    read_at: str


def read_history(
    query: ChangesQuery, caller: Caller, after: int | None = None, rows_searched: int = ROWS_SEARCHED
) -> HistoryPage:
    """A page of the changes that match, from the id `after` on.

    Whoever may see all changes may ask for any; others for those of a service that they own, in the namespaces in which
    they own it. A page that has to search for what matches may be short, or empty, and still be followed by others.

    Others append and prune meanwhile, and each statement has a snapshot of its own:

    1. Read where the log ends. Ids follow commit order, so no change comes in up to there any more: what is committed
       from now on is on later pages.
    2. Look up the namespaces. A service that begins in another one after that has all its changes behind the end.
    3. See how far the search goes: so many rows at most, and not past the end.
    4. Read the page, up to there. In the other order, the search would reach over rows that the page had not seen,
       when others before them were pruned between the two.

    Raises:
        PermissionMissing: the caller sees own services alone, and names none.
        ServiceNotFound, NotOwner: likewise, of the service named.
    """
    check_service_is_named(query.service, caller)
    read_at = read_newest_index()
    asked = parameters(query, namespaces_for(query, caller), rows_searched) | bounds(
        query, after, parse_index(read_at)[1]
    )
    scope = SERVICE if query.service else LOG
    ((reached, count),) = rows(reach(scope), asked)
    changes = [RecordedChange(*row) for row in rows(found(scope), asked | {"stop": reached})] if count else []
    if len(changes) > query.limit:
        return HistoryPage(changes[: query.limit], changes[query.limit - 1].pk, read_at)
    return HistoryPage(changes, reached if count == asked["searched"] else None, read_at)


def check_service_is_named(service: str | None, caller: Caller) -> None:
    """Whoever does not see all changes has to name a service. Raises PermissionMissing."""
    if service is None and not caller.may("view_change"):
        raise PermissionMissing("view_change")


def namespaces_for(query: ChangesQuery, caller: Caller) -> list[str] | None:
    """Those to look in; None, in all alike."""
    if not caller.may("view_change"):
        return owned(query, caller)
    if query.namespace:
        return [query.namespace]
    return all_namespaces() if query.service else None


def owned(query: ChangesQuery, caller: Caller) -> list[str]:
    """The namespaces in which the caller owns the service asked for."""
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


def bounds(query: ChangesQuery, after: int | None, last: int) -> dict[str, int]:
    """The ids between which the page lies, of a log that ends with `last`."""
    since, until = 0, last
    if query.since or query.until:
        ((first, latest),) = rows(BOUNDS, {"since": query.since, "until": query.until})
        since, until = first if query.since else since, min(latest, last) if query.until else last
    return {"after": max(since, after or 0), "stop": until}


def rows(sql: str, parameters: Mapping[str, Any]) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return list(cursor.fetchall())
