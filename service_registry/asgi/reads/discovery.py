"""Discovery, GET /registry/services/{name}: from memory, blocking with an index."""

from collections.abc import Mapping, Sequence
from typing import Any

from service_registry.asgi.auth import Authenticator
from service_registry.asgi.flow_control import ResponsesInFlight
from service_registry.asgi.headers import stale_headers
from service_registry.asgi.reads.blocking import BlockingReads
from service_registry.asgi.reads.compressor import Compressor
from service_registry.asgi.reads.response_cache import CacheKey, ResponseCache
from service_registry.asgi.reads.selection import Selection, SelectionCache
from service_registry.asgi.request import Request
from service_registry.database.transactions import with_retries
from service_registry.exceptions import ServiceNotFound
from service_registry.http import database_reads, etag
from service_registry.http.responses import Response
from service_registry.http.validation import validate_query
from service_registry.json_text import dump_json
from service_registry.permissions import LIST_SERVICES
from service_registry.replica.store import InstanceEntry, ServiceEntry, filter_documents, needs_parsing
from service_registry.schemas import DiscoveryQuery

# Above this number of instances, filters that parse documents run on a thread.
DOCUMENTS_ON_LOOP = 200


class Discovery:
    """Answers discovery of one service."""

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
        self.selections = SelectionCache()

    async def __call__(self, request: Request) -> Response:
        await self.authenticator.authenticate(request, LIST_SERVICES)
        request.log.service_name = request.path_parameter
        selection = self.selections.find(request.scope["query_string"])
        replica = await self.hub.current_replica() if selection else None
        if selection and replica:
            request.log.namespace = selection.named_namespace
            key = selection.namespace, request.path_parameter
            if service := replica.services.get(key):  # the name of a service that exists is valid
                return await self.respond(request, selection, key, service, replica.index)
        return await self.discover(request)

    async def discover(self, request: Request) -> Response:
        """Answer a query that is not known, or waits, or is about the past or a service that is not in memory."""
        parameters = request.query()
        request.log.namespace = parameters.get("namespace")
        query = validate_query(DiscoveryQuery, parameters, name=request.path_parameter)
        if query.index:
            await self.wait(request, query, query.index)
            await self.authenticator.authenticate(request, LIST_SERVICES)
        replica = await self.hub.current_replica()
        if replica is None or query.at:
            return await self.read_database(request, query)
        key = query.namespace, query.name
        if key not in replica.services:
            # Another process may have created it a moment ago: the log is read to its end before it is unknown. Where
            # that takes too long, the database is queried, as long as the replica is not known to be stale.
            if not await self.hub.catch_up() and self.hub.stale_seconds is None:
                return await self.read_database(request, query)
            replica = self.hub.replica or replica
        service = replica.services.get(key)
        if service is None:
            raise ServiceNotFound(ServiceNotFound.MAY_COME)
        selection = Selection.from_query(query)
        if not query.index:
            self.selections.put(request.scope["query_string"], selection)
        return await self.respond(request, selection, key, service, replica.index)

    async def wait(self, request: Request, query: DiscoveryQuery, index: str) -> None:
        await self.blocking.catch_up_with(index)
        topic = query.namespace, query.name
        replica = await self.hub.current_replica()
        if replica and topic in replica.services:
            await self.blocking.wait_for_change(request, topic, index, query.wait)
        elif replica:  # a client may start before the service that it needs
            await self.blocking.wait_beyond(request, topic, replica.pk, query.wait)

    async def read_database(self, request: Request, query: DiscoveryQuery) -> Response:
        """Read the past from the log, and the present while there is no replica."""
        if_none_match = request.header(b"if-none-match")
        return await self.compressor.encode(
            request,
            await self.threads.read_page(
                request, lambda: with_retries(lambda: database_reads.discover(query, if_none_match))
            ),
        )

    async def respond(
        self, request: Request, selection: Selection, name: tuple[str, str], service: ServiceEntry, newest: str
    ) -> Response:
        index = service.index or newest
        tag = etag.entity_tag(index, selection.digest)
        lines = f"x-registry-index: {newest}\r\netag: {tag}\r\nvary: Accept-Encoding\r\n".encode()
        headers = stale_headers(self.hub)
        if service.index and etag.matches(request.header(b"if-none-match"), tag):
            return Response(304, headers=headers, lines=lines)
        key = *name, selection.key
        body = self.cache.get(key, index)
        if body is None or not self.responses.has_capacity_for(body):
            del body  # a request that waits for capacity holds nothing
            body = await self.render(key, selection, service, index)
        response = Response(200, body, headers, lines=lines)
        return await self.compressor.encode(request, response, key, index)

    async def render(self, key: CacheKey, selection: Selection, service: ServiceEntry, index: str) -> bytes:
        """Return the body, which the first request that needs it renders. Raises TooBusy without memory for it."""
        members = {
            "index": index,
            "namespace": key[0],
            "name": key[1],
            "owners": service.owners,
            "protected": service.protected,
        }
        documents = await self.documents(selection.parameters, service.sorted_instances())
        await self.responses.wait_for_capacity(sum(map(len, documents)))
        body = self.cache.get(key, index)  # another request may have rendered it meanwhile
        if body is None:
            body = b'%b,"instances":[%b]}' % (dump_json(members)[:-1].encode(), b", ".join(documents))
            self.cache.put(key, index, body)
        return body

    async def documents(self, parameters: Mapping[str, Any], entries: Sequence[InstanceEntry]) -> Sequence[bytes]:
        if len(entries) > DOCUMENTS_ON_LOOP and needs_parsing(parameters):
            return await self.threads.run(lambda: list(filter_documents(entries, parameters)))
        return list(filter_documents(entries, parameters))
