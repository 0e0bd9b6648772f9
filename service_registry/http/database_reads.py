"""Discovery and the list as responses, read from the database.

Plain WSGI has no other way. The ASGI application reads the present from memory and comes here for the past, and while
its replica is not loaded.
"""

from service_registry import changelog
from service_registry.http import cursors, etag
from service_registry.http.compression import VARY
from service_registry.http.memory_budget import require_capacity
from service_registry.http.responses import INDEX_HEADER, Response
from service_registry.queries import as_of, catalogue
from service_registry.queries.filters import LISTED_STATES, resolve_filters
from service_registry.schemas import DiscoveryQuery, ListQuery


def discover(query: DiscoveryQuery, if_none_match: str | None) -> Response:
    """Return the instances of a service, now or at `query.at`.

    Raises ServiceNotFound, HistoryGone, TooBusy.
    """
    filters = resolve_filters(query, ["UP"], LISTED_STATES)
    if query.at:
        require_capacity()
        past = as_of.discover(query.namespace, query.name, filters, query.at)
        return Response(200, past.text.encode(), {INDEX_HEADER: past.index, **VARY})
    newest, newest_of_service = ends = changelog.read_newest_indexes(query.namespace, query.name)
    tag = etag.entity_tag(newest_of_service or newest, etag.query_digest(etag.query_key(query)))
    if newest_of_service and etag.matches(if_none_match, tag):
        return Response(304, headers={INDEX_HEADER: newest, "ETag": tag, **VARY})
    require_capacity()
    answer = catalogue.discover(query.namespace, query.name, filters, ends)
    return Response(200, answer.text.encode(), {INDEX_HEADER: answer.index, "ETag": tag, **VARY})


def list_services(query: ListQuery) -> Response:
    """Return a page of the list. Raises InvalidInput for the cursor, and TooBusy."""
    after = cursors.decode(query.after)
    require_capacity()
    page = catalogue.list_services(query, after)
    return Response(200, cursors.list_body(page), {INDEX_HEADER: page.read_at, **VARY})
