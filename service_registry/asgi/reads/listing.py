"""The list of services, GET /registry/services: from memory, page by page.

The pages are byte for byte those that `queries.catalogue.list_services` reads from the database.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from service_registry import changelog
from service_registry.asgi.auth import Authenticator
from service_registry.asgi.flow_control import UNKNOWN_BYTES, ResponsesInFlight
from service_registry.asgi.headers import replica_headers
from service_registry.asgi.limits import Places
from service_registry.asgi.reads.blocking import BlockingReads
from service_registry.asgi.reads.compressor import Compressor
from service_registry.asgi.reads.response_cache import CacheKey, ResponseCache
from service_registry.asgi.request import Request
from service_registry.database.transactions import with_retries
from service_registry.exceptions import TooBusy
from service_registry.http import cursors, database_reads
from service_registry.http.compression import VARY
from service_registry.http.etag import query_key
from service_registry.http.responses import INDEX_HEADER, Response
from service_registry.http.validation import validate_query
from service_registry.permissions import LIST_SERVICES
from service_registry.queries.catalogue import ListPosition
from service_registry.replica.list_page import PageBuilder, copy_in_parts, select_keys
from service_registry.replica.store import Replica
from service_registry.replica.subscribers import ALL_CHANGES
from service_registry.schemas import ListQuery

# Requests that wait for their page, and how long: a client that has waited longer has probably gone.
MAX_QUEUED = 200
QUEUE_SECONDS = 10

Result = TypeVar("Result")


class Listing:
    """Answers the list of services.

    Pages are built on one thread, one after the other, so that requests for the same page share one. Each is built
    only when there is memory for it among the responses in flight.
    """

    def __init__(
        self,
        authenticator: Authenticator,
        responses: ResponsesInFlight,
        blocking: BlockingReads,
        cache: ResponseCache,
    ) -> None:
        self.hub = blocking.hub
        self.threads = blocking.threads
        self.authenticator = authenticator
        self.responses = responses
        self.blocking = blocking
        self.cache = cache
        self.compressor = Compressor(cache)
        self.turn = asyncio.Lock()
        self.places = Places("list pages", MAX_QUEUED)
        self.builder_thread = ThreadPoolExecutor(1, thread_name_prefix="list")

    async def __call__(self, request: Request) -> Response:
        await self.authenticator.authenticate(request, LIST_SERVICES)
        parameters = request.query()
        request.log.namespace = parameters.get("namespace")
        query = validate_query(ListQuery, parameters)
        request.log.service_name = query.name
        after = cursors.decode(query.after)
        if query.index:
            await self.blocking.catch_up_with(query.index)
            await self.blocking.wait_for_change(request, ALL_CHANGES, query.index, query.wait)
            await self.authenticator.authenticate(request, LIST_SERVICES)
        if after:
            await self.blocking.catch_up_with(after.index)
        replica = await self.hub.current_replica()
        # A client watches from the index of the first page, which may come from another process: no page is older.
        if replica is None or (after and replica.pk < changelog.parse_index(after.index)[1]):
            page = await self.threads.read_page(
                request, lambda: with_retries(lambda: database_reads.list_services(query))
            )
            return await self.compressor.encode(request, page)
        with self.places.hold(request.log.actor):
            page = await self.page(replica, query, after)
        return await self.compressor.encode(request, page, cache_key(query), page.headers[INDEX_HEADER])

    async def page(self, replica: Replica, query: ListQuery, after: ListPosition | None) -> Response:
        """Return a page of the list, built one at a time. Raises TooBusy when the request has waited too long."""
        try:
            async with asyncio.timeout(QUEUE_SECONDS), self.turn:
                replica = self.hub.replica or replica
                headers = replica_headers(self.hub, replica.index) | VARY
                return Response(200, await self.body(replica, query, after), headers)
        except TimeoutError:
            raise TooBusy from None

    async def body(self, replica: Replica, query: ListQuery, after: ListPosition | None) -> bytes:
        key, index = cache_key(query), replica.index
        body = self.cache.get(key, index)
        if body is None or not self.responses.has_capacity_for(body):
            del body
            await self.responses.wait_for_capacity(UNKNOWN_BYTES)
            body = self.cache.get(key, index)
        if body is not None:
            return body
        builder = await self.build(replica, query, after)
        body = await self.on_thread(lambda: cursors.list_body(builder.build_page(after)))
        self.cache.put(key, index, body)
        return body

    async def build(self, replica: Replica, query: ListQuery, after: ListPosition | None) -> PageBuilder:
        """Build a page part by part.

        The event loop copies a part of the replica, and the thread filters it. Changes between two parts are
        newer than the page's index, as they may be where the database is read.
        """
        builder = PageBuilder(query, replica.index)
        keys = await self.on_thread(partial(select_keys, list(replica.services), query, after))
        for part in copy_in_parts(replica, keys, query.owner):
            await self.on_thread(partial(builder.add, part))
            if builder.has_more:
                break
        return builder

    async def on_thread(self, function: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self.builder_thread, function)


def cache_key(query: ListQuery) -> CacheKey:
    """Return the key of a page in the cache. No service has an empty name."""
    return "", "", query_key(query)
