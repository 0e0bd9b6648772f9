"""Search the log for people: by service, instance, kind, author and time.

The oldest change of a page comes first. The SQL stays SQL: a search filters the rows of a LIMIT, which the ORM cannot
express, and tests assert its plans.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import connection

from service_registry.caller import Caller
from service_registry.changelog.by_time import last_id_at
from service_registry.changelog.latest import read_newest_index
from service_registry.changelog.read import COLUMNS, OWNERS, RecordedChange, parse_index
from service_registry.exceptions import NotOwner, PermissionMissing, ServiceNotFound
from service_registry.models import Service
from service_registry.schemas import ChangesQuery
from service_registry.sql import CHANGE

# A page that has to search ends after this many rows, with the changes found by then.
ROWS_SEARCHED = 20_000

SEARCHED_COLUMNS = "c.id, c.kind, c.namespace, c.service_name, c.instance_id, c.actor"
ALL_ROWS = f"""
SELECT {SEARCHED_COLUMNS} FROM {CHANGE} c
WHERE c.id > %(after)s AND c.id <= %(stop)s ORDER BY c.id LIMIT %(searched)s
"""
# For each namespace, because the indexes begin with it.
ROWS_OF_SERVICE = f"""
SELECT c.* FROM unnest(%(namespaces)s::text[]) AS space(name), LATERAL (
    SELECT {SEARCHED_COLUMNS} FROM {CHANGE} c
    WHERE c.namespace = space.name AND c.service_name = %(service)s
        AND (%(instance_id)s::text IS NULL OR c.instance_id = %(instance_id)s)
        AND (c.id * -1) < -%(after)s::bigint AND (c.id * -1) >= -%(stop)s::bigint
    ORDER BY (c.id * -1) DESC LIMIT %(searched)s
) c ORDER BY c.id LIMIT %(searched)s
"""
# A search for an actor finds only changes whose actor the caller may see.
FILTERS = f"""(%(namespaces)s::text[] IS NULL OR c.namespace = ANY (%(namespaces)s::text[]))
    AND (%(instance_id)s::text IS NULL OR c.instance_id = %(instance_id)s)
    AND (%(kinds)s::text[] IS NULL OR c.kind = ANY (%(kinds)s::text[]))
    AND (%(actor)s::text IS NULL OR (c.actor = %(actor)s
        AND (%(groups)s::text[] IS NULL OR {OWNERS} && %(groups)s::text[])))"""


def page_query(rows: str) -> str:
    """Return the query for the matching changes of a page and one more."""
    return f"""
SELECT {COLUMNS} FROM {CHANGE} c
WHERE c.id = ANY (ARRAY(SELECT c.id FROM ({rows}) c WHERE {FILTERS} ORDER BY c.id LIMIT %(limit)s + 1))
ORDER BY c.id
"""


def reach_query(rows: str) -> str:
    """Return the query for the last row that a page's search reaches, and the count."""
    return f"SELECT max(c.id), count(*) FROM ({rows}) c"


NAMESPACES = f"""
-- Steps from one namespace to the next by index: there are few namespaces, and many changes.
WITH RECURSIVE space(name) AS (
    SELECT min(namespace) FROM {CHANGE}
    UNION ALL
    SELECT (SELECT c.namespace FROM {CHANGE} c WHERE c.namespace > space.name ORDER BY c.namespace LIMIT 1)
    FROM space WHERE space.name IS NOT NULL
)
SELECT name FROM space WHERE name IS NOT NULL
"""
BOUNDS = f"""
SELECT {last_id_at("(%(since)s::timestamptz - interval '1 microsecond')")}, {last_id_at("%(until)s::timestamptz")}
"""


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """A page of changes.

    `next` is the id after which the next page starts, None at the end; `read_at` is the newest index of the log.
    """

    changes: list[RecordedChange]
    next: int | None
    read_at: str


def read_history(
    query: ChangesQuery, caller: Caller, after: int | None = None, rows_searched: int = ROWS_SEARCHED
) -> HistoryPage:
    """Return a page of the changes that match `query`, from the id `after` on.

    A caller with `view_change` may read all changes; another caller those of a service that it owns, in the
    namespaces in which it owns it. Each change has the owners of the service at its time. A page that has to search
    for matches may be short, or empty, although more follow.

    Other transactions append and prune meanwhile, and each statement has its own snapshot:

    1. Read the newest index. Ids follow commit order, so no change can appear up to there any more: what commits from
       now on belongs to later pages.
    2. Look up the namespaces. All changes of a service that starts in another namespace later are behind that index.
    3. Find out how far the search goes: through a limited number of rows, and not past that index.
    4. Read the page up to there. In the other order, the search could reach over rows that the page had not seen, when
       rows before them were pruned between the two statements.

    Raises:
        PermissionMissing: the caller may see only its own services and names none.
        ServiceNotFound, NotOwner: the caller may see only its own services and names another one.
    """
    check_service_is_named(query.service, caller)
    read_at = read_newest_index()
    namespaces = select_namespaces(query, caller)
    parameters = build_parameters(query, caller, namespaces, rows_searched)
    parameters |= find_bounds(query, after, parse_index(read_at)[1])
    rows = ROWS_OF_SERVICE if query.service else ALL_ROWS
    ((reached, count),) = fetch(reach_query(rows), parameters)
    found = fetch(page_query(rows), parameters | {"stop": reached}) if count else []
    changes = [RecordedChange(*row) for row in found]
    if len(changes) > query.limit:
        return HistoryPage(changes[: query.limit], changes[query.limit - 1].pk, read_at)
    return HistoryPage(changes, reached if count == parameters["searched"] else None, read_at)


def check_service_is_named(service: str | None, caller: Caller) -> None:
    """Raise PermissionMissing when a caller must name a service and names none.

    Callers that may see all changes need not.
    """
    if service is None and not caller.may("view_change"):
        raise PermissionMissing("view_change")


def select_namespaces(query: ChangesQuery, caller: Caller) -> list[str] | None:
    """Return the namespaces to search; None when they do not matter."""
    if not caller.may("view_change"):
        return find_owned_namespaces(query, caller)
    if query.namespace:
        return [query.namespace]
    return [name for (name,) in fetch(NAMESPACES, {})] if query.service else None


def find_owned_namespaces(query: ChangesQuery, caller: Caller) -> list[str]:
    """Return the namespaces in which the caller owns the service.

    Raises ServiceNotFound and NotOwner.
    """
    services = Service.objects.filter(name=query.service)
    if query.namespace:
        services = services.filter(namespace=query.namespace)
    owners = dict(services.values_list("namespace", "owners"))
    if not owners:
        raise ServiceNotFound
    owned = [namespace for namespace, names in owners.items() if caller.owns(names)]
    if not owned:
        raise NotOwner
    return owned


def build_parameters(
    query: ChangesQuery, caller: Caller, namespaces: Sequence[str] | None, rows_searched: int
) -> dict[str, Any]:
    searches = query.kind or query.actor or (not query.service and (query.instance_id or namespaces))
    return {
        "namespaces": None if namespaces is None else list(namespaces),
        "service": query.service,
        "instance_id": query.instance_id,
        "kinds": query.kind or None,
        "actor": query.actor,
        "groups": None if caller.may("view_change") else sorted(caller.groups),
        "limit": query.limit,
        "searched": rows_searched if searches else query.limit + 1,
    }


def find_bounds(query: ChangesQuery, after: int | None, newest: int) -> dict[str, int]:
    """Return the ids between which the page lies, when `newest` is the newest id."""
    since, until = 0, newest
    if query.since or query.until:
        ((first, last),) = fetch(BOUNDS, {"since": query.since, "until": query.until})
        since, until = first if query.since else since, min(last, newest) if query.until else newest
    return {"after": max(since, after or 0), "stop": until}


def fetch(sql: str, parameters: Mapping[str, Any]) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return list(cursor.fetchall())
