"""A stream of server-sent events (HTML Standard, section 9.2).

It ends when the client leaves or has to start over.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from service_registry import metrics
from service_registry.asgi.auth import Authenticator
from service_registry.asgi.flow_control import ClientTooSlow, ClientWriter
from service_registry.asgi.headers import Head, common_lines, replica_headers, write_lines
from service_registry.asgi.request import Request
from service_registry.asgi.waiting import now
from service_registry.asgi.watch.subscription import Subscription
from service_registry.exceptions import IndexGone
from service_registry.http.callers import Identity
from service_registry.http.problems import problem_for_error
from service_registry.json_text import dump_json
from service_registry.permissions import WATCH
from service_registry.replica.events import ChangeEvent
from service_registry.replica.subscribers import EndReason

SYNC_SECONDS = 15.0
# One write: large enough to be cheap, small enough that a slow client holds little memory.
EVENTS_PER_WRITE = 100
WRITE_BYTES = 64 * 1024
HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store",
    # nginx would buffer the response and delay events.
    "X-Accel-Buffering": "no",
}
RESYNC_EVENT = b'event: resync\ndata: {"code":"index_gone"}\n\n'
# The last event for each end reason. A client that was too slow or has disconnected gets none.
LAST_EVENTS = {EndReason.RESYNC: RESYNC_EVENT, EndReason.SHUTDOWN: b"", EndReason.SLOW: b""}


class EventStream:
    """One stream of a watch.

    Attributes:
        begun: whether a part of the response may have been sent.
    """

    def __init__(
        self, request: Request, identity: Identity, subscription: Subscription, authenticator: Authenticator
    ) -> None:
        self.request = request
        self.identity = identity
        self.subscription = subscription
        self.authenticator = authenticator
        self.subscriber = subscription.subscriber
        self.writer: ClientWriter = subscription.writer
        self.subscriber.on_end = self.end_writes
        self.begun = False
        self.caught_up = False
        self.sync_at = now()

    def end_writes(self, reason: EndReason) -> None:
        """Abort a slow client's write when the subscription ends, or hurry another's."""
        if reason is EndReason.SLOW:
            self.writer.abort()
        else:
            self.writer.hurry()

    async def send(self) -> bool:
        """Send events until the stream ends; return False when the client read too slowly.

        That client has been disconnected.
        """
        try:
            await self.send_headers()
            last_event = await self.send_events()
            # The end of the subscription is no reason to hurry its last event.
            self.subscription.close()
            if last_event is not None:
                await self.writer.write(last_event, more=False)
        except ClientTooSlow:
            metrics.slow_clients.inc()
            self.writer.abort()
            return False
        return True

    async def send_headers(self) -> None:
        subscription = self.subscription
        headers = HEADERS | replica_headers(subscription.hub, subscription.replica.index)
        head = Head(200, common_lines(self.request) + write_lines(headers.items()))
        self.begun = True
        await self.writer(head.as_message())

    async def send_events(self) -> bytes | None:
        """Send events until no more will come, and return the last one.

        Returns None when the client has gone. The caller is judged again before each write, when keys or grants change,
        and once a minute.
        """
        try:
            while not self.subscriber.end_reason:
                events = await self.subscription.next(EVENTS_PER_WRITE, WRITE_BYTES)
                if refusal := await self.refusal():
                    return refusal
                await (self.write(events) if events else self.wait())
        except IndexGone:
            return RESYNC_EVENT
        return LAST_EVENTS.get(self.subscriber.end_reason)

    async def refusal(self) -> bytes | None:
        """Judge the caller anew; return the last event when it may not go on.

        While no caller can be judged, this one may go on until its token expires: an outage ends no stream.
        """
        try:
            self.identity = await self.authenticator.authenticate(self.request, WATCH)
        except Exception as error:  # noqa: BLE001 - judged by its status
            status, problem = problem_for_error(error, self.request.log.request_id)
            if status in {401, 403}:
                return refusal_event(status, problem)
            return None if self.identity.seconds_left > 0 else refusal_event(401, {"code": "token_invalid"})
        return None

    async def write(self, events: Sequence[ChangeEvent]) -> None:
        caller = self.identity.caller
        texts = [event.render(change_event, caller.may_read_actors(event.change.owners)) for event in events]
        await self.writer.write(b"".join(texts))
        if self.caught_up:
            self.sync_at = now() + SYNC_SECONDS

    async def wait(self) -> None:
        """Wait for a change, at most until the next `sync` event is due.

        The first `sync` means that all earlier changes have been sent, a later one that none came for a while.
        """
        seconds = self.sync_at - now()
        if seconds > 0:
            await self.subscriber.wait(min(seconds, self.identity.seconds_to_judgement))
            return
        self.caught_up = True
        await self.writer.write(sync_event(self.subscription.index))
        self.sync_at = now() + SYNC_SECONDS


def change_event(index: str, document: bytes) -> bytes:
    """Return the event of a change. PostgreSQL's JSON has no line breaks."""
    return b"id: %b\nevent: change\ndata: %b\n\n" % (index.encode(), document)


def sync_event(index: str) -> bytes:
    """Return the event with the index up to which a client has received everything."""
    text = index.encode()
    return b'id: %b\nevent: sync\ndata: {"index":"%b"}\n\n' % (text, text)


def refusal_event(status: int, problem: Mapping[str, Any]) -> bytes:
    """Return the last event for a caller that a new request would be refused.

    It is `expired` where a new token helps (401), else `forbidden` (403).
    """
    data = {name: problem[name] for name in ("code", "permission", "reason") if name in problem}
    return b"event: %b\ndata: %b\n\n" % (b"expired" if status == 401 else b"forbidden", dump_json(data).encode())
