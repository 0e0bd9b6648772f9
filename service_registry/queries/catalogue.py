"""Read discovery of a service and the list from the database.

Each reads the newest index before the data. PostgreSQL renders the JSON, which is sent as it is: parsing it here would
cost more than the query.
"""

from dataclasses import dataclass
from typing import Any

from django.db import connection

from service_registry import changelog
from service_registry.choices import Status
from service_registry.exceptions import ServiceNotFound
from service_registry.json_text import dump_json, dump_json_with_array
from service_registry.queries.filters import MATCHES, ResolvedFilters, like_pattern, resolve_filters
from service_registry.schemas import ListQuery
from service_registry.sql import (
    CHANGE,
    INSTANCE,
    INSTANCE_DOCUMENT,
    INSTANCE_ROWS,
    IS_HEALTHY,
    IS_LISTED,
    LEASE,
    NEWEST_FIRST,
    SERVICE,
)

INSTANCES_PER_PAGE = 2000

DISCOVER = f"""
SELECT found.owners, EXISTS (
        SELECT FROM {INSTANCE} i JOIN {LEASE} l ON l.instance_id = i.id
        WHERE i.service_id = found.id AND {IS_LISTED} AND l.protected_at IS NOT NULL),
    COALESCE((
        SELECT json_agg({INSTANCE_DOCUMENT} ORDER BY i.instance_id) FROM {INSTANCE_ROWS}
        WHERE i.service_id = found.id AND {MATCHES})::text, '[]')
FROM {SERVICE} found
WHERE found.namespace = %(namespace)s AND found.name = %(name)s
"""


@dataclass(frozen=True, slots=True)
class IndexedJson:
    """A JSON text, and the newest index just before the text was read."""

    index: str
    text: str


def discover(namespace: str, name: str, filters: ResolvedFilters, indexes: tuple[str, str | None]) -> IndexedJson:
    """Return the matching instances of a service.

    One statement, after `changelog.read_newest_indexes`.

    Args:
        indexes: the newest index of the log, and that of the service.

    Raises:
        ServiceNotFound: no service has this name. A service without instances is found, and its list is empty.
    """
    newest, newest_of_service = indexes
    with connection.cursor() as cursor:
        cursor.execute(DISCOVER, {"namespace": namespace, "name": name, **filters.parameters})
        row = cursor.fetchone()
    if row is None:
        raise ServiceNotFound(ServiceNotFound.MAY_COME)
    owners, protected, instances = row
    members = {
        "index": newest_of_service or newest,
        "namespace": namespace,
        "name": name,
        "owners": owners,
        "protected": protected,
    }
    return IndexedJson(newest, dump_json_with_array(members, "instances", instances))


PAGE = f"""
WITH candidate AS (
    SELECT c.id, c.namespace, c.name, c.owners FROM {SERVICE} c
    WHERE (c.namespace, c.name) > (%(after_namespace)s, %(after_name)s)
        AND (%(namespace)s::text IS NULL OR c.namespace = %(namespace)s)
        AND (%(name)s::text IS NULL OR c.name LIKE %(name)s)
        AND (%(owner)s::text IS NULL OR c.owners @> ARRAY[%(owner)s])
        AND (NOT %(narrowed)s OR EXISTS (SELECT FROM {INSTANCE_ROWS} WHERE i.service_id = c.id AND {MATCHES}))
    ORDER BY c.namespace, c.name LIMIT %(limit)s + 1
),
counted AS (
    SELECT candidate.*, counts.*,
        sum(counts.shown) OVER up_to AS shown_up_to, row_number() OVER up_to AS position
    FROM candidate, LATERAL (
        SELECT count(*) FILTER (WHERE {IS_LISTED}) AS instance_count, count(*) FILTER (WHERE {IS_HEALTHY}) AS healthy,
            count(l.protected_at) > 0 AS protected, count(*) FILTER (WHERE {MATCHES}) AS shown
        FROM {INSTANCE_ROWS} WHERE i.service_id = candidate.id
    ) counts
    WINDOW up_to AS (ORDER BY candidate.namespace, candidate.name ROWS UNBOUNDED PRECEDING)
)
SELECT page.namespace, page.name, page.owners, page.instance_count, page.healthy, page.protected,
    (SELECT c.mark || '-' || c.id FROM {CHANGE} c
        WHERE c.namespace = page.namespace AND c.service_name = page.name ORDER BY {NEWEST_FIRST} LIMIT 1),
    CASE WHEN %(full)s THEN COALESCE((
        SELECT json_agg({INSTANCE_DOCUMENT} ORDER BY i.instance_id) FROM {INSTANCE_ROWS}
        WHERE i.service_id = page.id AND {MATCHES})::text, '[]') END,
    EXISTS (SELECT FROM counted later WHERE later.position > page.position)
FROM counted page
WHERE page.position <= %(limit)s AND (NOT %(full)s OR page.shown_up_to - page.shown < %(instances)s)
ORDER BY page.namespace, page.name
"""
SERVICE_MEMBERS = ("namespace", "name", "owners", "instance_count", "healthy_count", "protected", "index")


@dataclass(frozen=True, slots=True)
class ListPosition:
    """The position of a client in the list.

    It is the index of the first page, and the last service that the client was sent.
    """

    index: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class ServicePage:
    """A page of the list.

    `services` is the JSON text of an array, `index` the newest index at the first page, `read_at` that at this page.
    `next` is None at the end of the list.
    """

    read_at: str
    index: str
    services: str
    next: ListPosition | None


def list_services(query: ListQuery, after: ListPosition | None, max_instances: int = INSTANCES_PER_PAGE) -> ServicePage:
    """Return a page of the list in the order of namespace and name. Two statements.

    It has at most `query.limit` services, and ends with the one that reaches `max_instances`; no service is split. The
    page carries the newest index at the first page, so that a watch from there misses no change.
    """
    index = changelog.read_newest_index()
    filters = resolve_filters(query, Status.values)
    with connection.cursor() as cursor:
        cursor.execute(
            PAGE,
            filters.parameters
            | {
                "after_namespace": after.namespace if after else "",
                "after_name": after.name if after else "",
                "namespace": query.namespace,
                "name": like_pattern(query.name),
                "owner": query.owner,
                "narrowed": filters.narrowed,
                "full": query.view == "full",
                "limit": query.limit,
                "instances": max_instances,
            },
        )
        rows = cursor.fetchall()
    first_index = after.index if after else index
    services = ",".join(render_service(row[:7], row[7], index) for row in rows)
    following = ListPosition(first_index, rows[-1][0], rows[-1][1]) if rows and rows[-1][8] else None
    return ServicePage(index, first_index, f"[{services}]", following)


def render_service(row: tuple[Any, ...], instances: str | None, newest: str) -> str:
    members = dict(zip(SERVICE_MEMBERS, row, strict=True))
    members["index"] = members["index"] or newest
    return dump_json(members) if instances is None else dump_json_with_array(members, "instances", instances)
