"""The watch: a stream of events, or a poll that waits. Whoever waits holds a few kilobytes here, and nothing else."""

import asyncio
import re
from collections import Counter

from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope
from django.core.exceptions import SuspiciousOperation
from django.http import QueryDict

from service_registry.api.errors import headers_of, is_failure, problem_of
from service_registry.api.reporting import Answered, outcome
from service_registry.api.watch import asked
from service_registry.asgi import request as door
from service_registry.asgi import transport
from service_registry.asgi.auth import Askers, Exchange
from service_registry.asgi.flow_control import Outlet
from service_registry.asgi.limits import Limits
from service_registry.asgi.watch.long_poll import Poll
from service_registry.asgi.watch.sse import Stream
from service_registry.asgi.watch.subscription import Following
from service_registry.exceptions import InvalidInput
from service_registry.permissions import WATCH
from service_registry.replica.hub import Hub
from service_registry.replica.subscribers import EndReason
from service_registry.schemas import WatchQuery

PATHS = {"/registry/watch", "/registry/watch/"}
# RFC 9110, section 12.4.2.
REFUSED = re.compile(rb"q=0(\.0{0,3})?")


class WatchDoor:
    """Answers GET /registry/watch."""

    def __init__(self, hub: Hub, askers: Askers, limits: Limits) -> None:
        self.hub = hub
        self.askers = askers
        self.limits = limits

    async def __call__(
        self, scope: HTTPScope, body: bytes, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> bool:
        """Answer the request, or return False: then Django says what is wrong with it."""
        if scope["path"] not in PATHS or scope["method"] != "GET":
            return False
        request = door.arrived(scope, body)
        asking = await self.askers.asking(request, WATCH) if request else None
        query = understood(request) if request else None
        if request is None or asking is None or query is None:
            return False
        watch = Watch(self, Exchange(request, asking, receive, send), query)
        return await watch.answered()


def understood(request: door.Arrived) -> WatchQuery | None:
    last_event_id = request.headers.get(b"last-event-id", b"").decode("latin-1")
    try:
        return asked(QueryDict(request.scope["query_string"]), last_event_id)
    except (InvalidInput, SuspiciousOperation):
        return None


def wants_stream(request: door.Arrived) -> bool:
    """Whether `Accept` names the event stream's media type, and does not refuse it by a weight of 0."""
    for accepted in request.headers.get(b"accept", b"").lower().split(b","):
        media_type, *parameters = (part.strip() for part in accepted.split(b";"))
        if media_type == b"text/event-stream":
            return not any(REFUSED.fullmatch(each) for each in parameters)
    return False


class Watch:
    """One watch, from its request to its end."""

    def __init__(self, place: WatchDoor, exchange: Exchange, query: WatchQuery) -> None:
        self.place = place
        self.exchange = exchange
        self.query = query
        outlet = Outlet(exchange.send, place.limits.answers)
        self.following = Following(place.hub, place.askers, outlet, query)
        self.way: Stream | Poll = (
            Stream(exchange, self.following)
            if wants_stream(exchange.request)
            else Poll(exchange, query, self.following)
        )

    async def answered(self) -> bool:
        """Stream, or poll. False when the token ran out before there was an answer: Django refuses it."""
        client = asyncio.create_task(transport.watch_client(self.exchange.receive, self.following.waiter))
        try:
            with self.place.limits.watch(self.exchange.asking.caller.actor, self.way.kind):
                self.enter()
                await self.following.begin()
                came = await self.way.give()
        except Exception as error:  # noqa: BLE001 - each is a problem, as in DRF's hook
            await self.refuse(error)
            return True
        finally:
            client.cancel()
            self.following.leave()
        if came is not None:
            self.report(200, came)
        return came is not None

    def enter(self) -> None:
        waiter = self.following.waiter
        self.place.hub.subscribers.attach(waiter)
        if self.place.hub.stopping:
            waiter.end(EndReason.SHUTDOWN)

    async def refuse(self, error: Exception) -> None:
        """The problem, where the answer has not begun; a stream can only break off, and its client comes back."""
        if self.way.begun:
            transport.abort(self.exchange.send)
            self.report(200, "ok", error)
            return
        status, document = problem_of(error, self.exchange.request.request_id)
        more = headers_of(status, error)
        await door.answer(self.exchange.send, self.exchange.request, status, document, more.items())
        self.report(status, outcome(status, document), error if is_failure(status, error) else None)

    def report(self, status: int, came: str, error: Exception | None = None) -> None:
        named = self.query.service
        this = Answered(
            method="GET",
            verb="watch",
            route="/registry/watch",
            status=status,
            outcomes=Counter({came: 1}),
            request_id=self.exchange.request.request_id,
            actor=self.exchange.asking.caller.actor,
            namespace=self.query.namespace,
            service_name=named[0] if len(named) == 1 else None,
            instance_id=None,
            error=error,
        )
        door.report(self.exchange.request, this)
