"""The watch, GET /registry/watch: an event stream or a long poll.

A waiting client costs a few kilobytes, no thread.
"""

import asyncio
import re
from dataclasses import dataclass

from service_registry.asgi import transport
from service_registry.asgi.auth import Authenticator
from service_registry.asgi.flow_control import ClientWriter, ResponsesInFlight
from service_registry.asgi.limits import SubscriberPlaces
from service_registry.asgi.request import Request
from service_registry.asgi.threads import ReadThreads
from service_registry.asgi.waiting import end_on_disconnect
from service_registry.asgi.watch.long_poll import long_poll
from service_registry.asgi.watch.sse import EventStream
from service_registry.asgi.watch.subscription import Subscription
from service_registry.http.callers import Identity
from service_registry.http.request_log import SLOW_CLIENT
from service_registry.http.responses import Response
from service_registry.http.validation import validate_watch_query
from service_registry.permissions import WATCH
from service_registry.replica.hub import Hub
from service_registry.replica.subscribers import EndReason
from service_registry.schemas import WatchQuery

# A weight of 0 (RFC 9110, section 12.4.2): the client does not accept this media type.
NOT_ACCEPTED = re.compile(r"q=0(\.0{0,3})?")


@dataclass(eq=False)
class Watch:
    """Answers watches."""

    hub: Hub
    authenticator: Authenticator
    responses: ResponsesInFlight
    threads: ReadThreads
    places: SubscriberPlaces

    async def __call__(self, request: Request) -> Response | None:
        """Return the response of a poll; None for a stream, which has been sent then."""
        identity = await self.authenticator.authenticate(request, WATCH)
        query = validate_watch_query(request.query(), request.header(b"last-event-id"))
        request.log.namespace = query.namespace
        request.log.service_name = query.service[0] if len(query.service) == 1 else None
        subscription = Subscription(self.hub, self.threads, ClientWriter(request.send, self.responses), query)
        watching_client = asyncio.create_task(end_on_disconnect(request.receive, subscription.subscriber))
        try:
            return await self.answer(request, identity, query, subscription)
        finally:
            watching_client.cancel()
            subscription.close()

    async def answer(
        self, request: Request, identity: Identity, query: WatchQuery, subscription: Subscription
    ) -> Response | None:
        streams = accepts_event_stream(request.header(b"accept") or "")
        with self.places.subscribe(identity.caller.actor, "stream" if streams else "poll"):
            self.attach(subscription)
            await subscription.begin()
            if not streams:
                return await long_poll(request, query, subscription, self.authenticator)
            await self.stream(request, EventStream(request, identity, subscription, self.authenticator))
            return None

    async def stream(self, request: Request, stream: EventStream) -> None:
        """Send the changes as an event stream.

        After an error the stream can only break off; its client connects again.
        """
        try:
            request.log.note_response(200, "ok" if await stream.send() else SLOW_CLIENT)
        except Exception as error:
            if not stream.begun:
                raise
            transport.abort(request.send)
            request.log.note_response(200, "ok")
            request.log.error = error

    def attach(self, subscription: Subscription) -> None:
        """Have the subscription ended with all others, at once during a shutdown."""
        self.hub.subscribers.attach(subscription.subscriber)
        if self.hub.stopping:
            subscription.subscriber.end(EndReason.SHUTDOWN)


def accepts_event_stream(accept: str) -> bool:
    """Return whether an Accept header names the event stream with a weight above 0."""
    for accepted in accept.lower().split(","):
        media_type, *parameters = (part.strip() for part in accepted.split(";"))
        if media_type == "text/event-stream":
            return not any(NOT_ACCEPTED.fullmatch(parameter) for parameter in parameters)
    return False
