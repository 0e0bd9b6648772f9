"""Reads from memory: discovery, the list while the database is away, and those that wait for a change first."""

import asyncio
import re
from collections import Counter
from collections.abc import Sequence

from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope
from django.core.exceptions import SuspiciousOperation
from django.db import Error
from django.http import QueryDict

from service_registry import changelog as log
from service_registry.api.errors import headers_of, problem_of
from service_registry.api.renderer import INDEX_HEADER
from service_registry.api.reporting import Answered, outcome
from service_registry.asgi import request as door
from service_registry.asgi import transport
from service_registry.asgi.auth import Askers, Exchange
from service_registry.asgi.flow_control import Outlet
from service_registry.asgi.limits import Limits
from service_registry.asgi.reads.database_probe import Presence
from service_registry.asgi.reads.listing import Listing
from service_registry.asgi.reads.response_cache import Texts
from service_registry.exceptions import (
    IndexGone,
    InvalidInput,
    RegistryError,
    ServiceNotFound,
    TooBusy,
    TooManySubscribers,
)
from service_registry.http import etag
from service_registry.http.validation import validate_query
from service_registry.json_text import dump_json
from service_registry.permissions import LIST_SERVICES
from service_registry.queries.filters import LISTED_STATES, resolve_filters
from service_registry.replica.hub import Hub
from service_registry.replica.store import InstanceEntry, Replica, ServiceEntry, filter_documents, needs_parsing
from service_registry.replica.subscribers import ALL_CHANGES, EndReason, Subscriber, Topic
from service_registry.schemas import DiscoveryQuery, ListQuery

LIST = re.compile(r"/registry/services/?", re.ASCII)
DISCOVERY = re.compile(r"/registry/services/([^/]+)/?", re.ASCII)
# Above this many, looking into documents is left to a thread.
DOCUMENTS_AT_ONCE = 200


class ReadsDoor:
    """Answers GET /registry/services/{name}; lets GET /registry/services wait, and answers it while Django cannot."""

    def __init__(self, hub: Hub, askers: Askers, limits: Limits) -> None:
        self.hub = hub
        self.askers = askers
        self.limits = limits
        self.texts = Texts()
        self.listing = Listing(hub, self.texts, limits.answers)
        self.presence = Presence(askers)

    async def __call__(
        self, scope: HTTPScope, body: bytes, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> bool:
        """Answer the request, or return False: then it is for Django, which has the list and every refusal."""
        if scope["method"] != "GET":
            return False
        discovery = DISCOVERY.fullmatch(scope["path"])
        if not discovery and not (LIST.fullmatch(scope["path"]) and self.has_to_list(scope)):
            return False
        request = door.arrived(scope, body)
        asking = await self.askers.asking(request, LIST_SERVICES) if request else None
        query = understood(request, discovery and discovery[1]) if request else None
        if request is None or asking is None or query is None or is_of_the_past(query):
            return False
        read = Read(self, Exchange(request, asking, receive, send), query)
        return await (read.discover(query) if isinstance(query, DiscoveryQuery) else read.list_services(query))

    def has_to_list(self, scope: HTTPScope) -> bool:
        """Whether somebody waits, or nobody else can answer."""
        return b"index=" in scope["query_string"] or self.listing.is_needed


def understood(request: door.Arrived, name: str | None) -> DiscoveryQuery | ListQuery | None:
    try:
        query = QueryDict(request.scope["query_string"])
        return validate_query(ListQuery, query) if name is None else validate_query(DiscoveryQuery, query, name=name)
    except (InvalidInput, SuspiciousOperation):
        return None


def is_of_the_past(query: DiscoveryQuery | ListQuery) -> bool:
    """Whether the log has to be asked: memory knows the present alone."""
    return isinstance(query, DiscoveryQuery) and query.at is not None


class Read:
    """One read, from its request to its answer."""

    def __init__(self, place: ReadsDoor, exchange: Exchange, query: DiscoveryQuery | ListQuery) -> None:
        self.place = place
        self.hub = place.hub
        self.exchange = exchange
        self.query = query

    async def list_services(self, query: ListQuery) -> bool:
        """Wait for a change of the log where an index is held. Then the list is Django's, except while the database is
        away."""
        try:
            if query.index and await self.wait_for_log(query.index) is EndReason.DISCONNECTED:
                return True
            page = await self.list_from_memory(query)
        except InvalidInput:  # the cursor
            return False
        except (TooManySubscribers, TooBusy) as error:
            return await self.refuse(error)
        if page is None:
            return False
        await self.send(*page)
        return True

    async def list_from_memory(self, query: ListQuery) -> tuple[bytes, dict[str, str]] | None:
        """None where the database can be asked, or the token has run out."""
        if not self.place.listing.is_needed or await self.place.presence.answers():
            return None
        page = await self.place.listing.page(query)
        return page if await self.place.askers.still_good(self.exchange, LIST_SERVICES) else None

    async def discover(self, query: DiscoveryQuery) -> bool:
        """Answer from memory; False where there is none, or the database has to be asked whether there is such a
        service at all."""
        key = query.namespace, query.name
        await self.reach(query.index)
        replica = await self.hub.current_replica()
        try:
            if query.index and replica and key in replica.services:
                if await self.wait(key) is EndReason.DISCONNECTED:
                    return True
                replica = await self.hub.current_replica()
            if replica is None or not await self.place.askers.still_good(self.exchange, LIST_SERVICES):
                return False
            service = replica.services.get(key)
            if service is None:
                if self.hub.stale_seconds is None:
                    return False
                raise ServiceNotFound
            return await self.give(query, replica, service)
        except (ServiceNotFound, TooBusy, TooManySubscribers) as error:
            return await self.refuse(error)

    # --- Waiting ------------------------------------------------------------------------------------------------

    async def wait(self, topic: Topic) -> EndReason | None:
        """Until there is a change of `topic` after the index held, or the time is up. Why it ended, if for another
        reason. Raises TooManySubscribers."""
        index = self.query.index
        assert index is not None, "only those wait who hold an index"
        pk = await self.held(index, topic)
        if pk is None or self.hub.stopping:
            return None
        waiter = Subscriber([topic], pk, keeps_events=False)
        client = asyncio.create_task(transport.watch_client(self.exchange.receive, waiter))
        self.hub.subscribers.subscribe(waiter)
        try:
            with self.place.limits.wait("read"):
                until = transport.now() + transport.with_jitter(self.query.wait)
                while waiter.position == pk and not waiter.end_reason and transport.now() < until:
                    await waiter.wait(until - transport.now())
            return waiter.end_reason
        finally:
            client.cancel()
            self.hub.subscribers.unsubscribe(waiter)

    async def wait_for_log(self, index: str) -> EndReason | None:
        """Where there is no memory, nobody waits. Raises TooManySubscribers."""
        await self.reach(index)
        return await self.wait(ALL_CHANGES) if await self.hub.current_replica() else None

    async def reach(self, index: str | None) -> None:
        """An index that is newer than memory may be of another process, whose changes come in a moment."""
        if index and self.hub.replica and log.parse_index(index)[1] > self.hub.replica.pk:
            await self.hub.catch_up()

    async def held(self, index: str, topic: Topic) -> int | None:
        """The id of the change to wait beyond; None when there is something newer already, or the index cannot be
        placed: then the present state is the answer."""
        _mark, pk = log.parse_index(index)
        replica = self.hub.replica
        if replica is None or pk > replica.pk or pk < newest_of(replica, topic)[0]:
            return None
        known = self.hub.contains_index(replica, index)
        if known is None:
            known = index == newest_of(replica, topic)[1] or await self.is_in_log(index)
        # What came while the log was asked is newer than what is waited for: told at once below.
        replica = self.hub.replica
        return pk if known and replica and pk >= newest_of(replica, topic)[0] else None

    async def is_in_log(self, index: str) -> bool:
        """Ask the database about an index from before this process's memory; no, when it does not answer."""
        try:
            await self.place.askers.on_thread(lambda: log.read_after(index, 1))
        except (IndexGone, Error):
            return False
        return True

    # --- Answering ----------------------------------------------------------------------------------------------

    async def give(self, query: DiscoveryQuery, replica: Replica, service: ServiceEntry) -> bool:
        index = service.index or replica.index
        tag = etag.tag_of(index, etag.question_of(query))
        more = {INDEX_HEADER: replica.index, "ETag": tag} | transport.stale_header(self.hub)
        sent = self.exchange.request.headers.get(b"if-none-match")
        if service.index and etag.matches(sent.decode("latin-1") if sent else None, tag):
            await door.answer_unchanged(self.exchange.send, self.exchange.request, more.items())
            self.report(304, "ok")
            return True
        text = await self.text(query, service, index)
        await self.send(text, more)
        return True

    async def send(self, text: bytes, more: dict[str, str]) -> None:
        """As fast as the client takes it."""
        answers = self.place.limits.answers
        whole = await answers.give(Outlet(self.exchange.send, answers), self.exchange.request, text, more.items())
        self.report(200, "ok" if whole else "too_slow")

    async def text(self, query: DiscoveryQuery, service: ServiceEntry, index: str) -> bytes:
        """The answer, put together by whoever asks first."""
        question = query.namespace, query.name, etag.question_of(query)
        text = self.place.texts.get(question, index)
        if text is not None and self.place.limits.answers.has_room_for(text):
            return text
        del text  # who waits for room holds nothing
        members = {
            "index": index,
            "namespace": query.namespace,
            "name": query.name,
            "owners": service.owners,
            "protected": service.protected,
        }
        documents = await self.documents(query, service.sorted_instances())
        await self.place.limits.answers.wait_for_room(sum(map(len, documents)))
        text = self.place.texts.get(question, index)  # it is there, or another may have put it together meanwhile
        if text is None:
            text = b'%b,"instances":[%b]}' % (dump_json(members)[:-1].encode(), b", ".join(documents))
            self.place.texts.keep(question, index, text)
        return text

    async def documents(self, query: DiscoveryQuery, entries: Sequence[InstanceEntry]) -> Sequence[bytes]:
        parameters = resolve_filters(query, ["UP"], LISTED_STATES).parameters
        if len(entries) > DOCUMENTS_AT_ONCE and needs_parsing(parameters):
            return await self.place.askers.on_thread(lambda: list(filter_documents(entries, parameters)))
        return list(filter_documents(entries, parameters))

    async def refuse(self, error: RegistryError) -> bool:
        status, document = problem_of(error, self.exchange.request.request_id)
        more = headers_of(status, error) | transport.stale_header(self.hub)
        await door.answer(self.exchange.send, self.exchange.request, status, document, more.items())
        self.report(status, outcome(status, document))
        return True

    def report(self, status: int, code: str) -> None:
        discovery = isinstance(self.query, DiscoveryQuery)
        this = Answered(
            method="GET",
            verb="discover" if discovery else "list",
            route="/registry/services/{name}" if discovery else "/registry/services",
            status=status,
            outcomes=Counter({code: 1}),
            request_id=self.exchange.request.request_id,
            actor=self.exchange.asking.caller.actor,
            namespace=QueryDict(self.exchange.request.scope["query_string"]).get("namespace"),
            service_name=self.query.name,
            instance_id=None,
        )
        door.report(self.exchange.request, this)


def newest_of(replica: Replica, topic: Topic) -> tuple[int, str]:
    """Id and index of the newest change that `topic` has."""
    service = replica.services.get((topic[0] or "", topic[1] or ""))
    return (service.pk, service.index) if service and service.index else (replica.pk, replica.index)
