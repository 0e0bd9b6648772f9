"""The watch: a stream of events, or a poll that waits. Whoever waits holds a few kilobytes here, and nothing else."""

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope
from django.core.exceptions import SuspiciousOperation
from django.http import QueryDict

from service_registry import metrics
from service_registry.api.errors import headers_of, is_failure, problem_of
from service_registry.api.renderer import INDEX_HEADER
from service_registry.api.reporting import Answered, outcome
from service_registry.api.watch import asked
from service_registry.changes import CHANGES_AT_ONCE
from service_registry.exceptions import IndexGone, InvalidInput
from service_registry.live import door, pauses
from service_registry.live.asking import Askers, Exchange
from service_registry.live.following import Following
from service_registry.live.hub import Hub
from service_registry.live.limits import Limits
from service_registry.live.replica import Change
from service_registry.live.waiting import Ending
from service_registry.permissions import WATCH
from service_registry.schemas import WatchQuery

PATHS = {"/registry/watch", "/registry/watch/"}
BOOKMARK_SECONDS = 15.0
# One write: large enough to be cheap, small enough that a slow client holds little of ours.
CHANGES_A_WRITE = 100
# Whoever takes nothing for so long is cut off.
WRITE_SECONDS = 30
# The same once this process is to end: it waits for all of them.
LAST_WRITE_SECONDS = 2
# RFC 9110, section 12.4.2.
REFUSED = re.compile(rb"q=0(\.0{0,3})?")
EXPIRED = b'event: expired\ndata: {"code":"token_invalid"}\n\n'
RESYNC = b'event: resync\ndata: {"code":"index_gone"}\n\n'
STREAM_HEADERS: door.Headers = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    # Proxies that gather answers would hold events back.
    (b"x-accel-buffering", b"no"),
]


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


class CutOff(Exception):
    """The client does not take what it asked for."""


class Watch:
    """One watch, from its request to its end."""

    def __init__(self, place: WatchDoor, exchange: Exchange, query: WatchQuery) -> None:
        self.place = place
        self.exchange = exchange
        self.query = query
        self.following = Following(place.hub, place.askers, query.service, query.namespace, query.index)
        self.waiter = self.following.waiter
        self.status = 0
        self.writing: asyncio.Timeout | None = None
        self.told: dict[str, Any] = {"outcomes": Counter({"ok": 1})}

    async def answered(self) -> bool:
        """Stream, or poll. False when the token ran out before there was an answer: Django refuses it."""
        stream = wants_stream(self.exchange.request)
        client = asyncio.create_task(pauses.watch_client(self.exchange.receive, self.waiter))
        try:
            with self.place.limits.watch(self.exchange.asking.caller.actor, "stream" if stream else "poll"):
                self.enter()
                await self.following.begin()
                done = await (self.stream() if stream else self.poll())
        except Exception as error:  # noqa: BLE001 - each is a problem, as in DRF's hook
            done = await self.refuse(error)
        finally:
            client.cancel()
            self.following.leave()
        if done:
            self.report()
        return done

    def enter(self) -> None:
        self.place.hub.waiters.enter(self.waiter)
        if self.place.hub.stopping:
            self.waiter.end(Ending.STOPPING)

    async def refuse(self, error: Exception) -> bool:
        """The problem, where the answer has not begun; a stream can only break off, and its client comes back."""
        if self.status:
            self.told["error"] = error
            pauses.abort(self.exchange.send)
            return True
        self.status, document = problem_of(error, self.exchange.request.request_id)
        self.told = {"outcomes": Counter({outcome(self.status, document): 1})}
        self.told["error"] = error if is_failure(self.status, error) else None
        await door.answer(
            self.exchange.send, self.exchange.request, self.status, document, headers_of(self.status, error).items()
        )
        return True

    def report(self) -> None:
        named = self.query.service
        this = Answered(
            method="GET",
            verb="watch",
            route="/registry/watch",
            status=self.status or 200,
            request_id=self.exchange.request.request_id,
            actor=self.exchange.asking.caller.actor,
            namespace=self.query.namespace,
            service_name=named[0] if len(named) == 1 else None,
            instance_id=None,
            **self.told,
        )
        door.report(self.exchange.request, this)

    def texts(self, changes: Sequence[Change]) -> list[bytes]:
        """The changes as this caller may see them."""
        caller, replica = self.exchange.asking.caller, self.following.replica
        return [change.full if caller.sees_authors(replica.owners_of(change)) else change.public for change in changes]

    # --- The poll -----------------------------------------------------------------------------------------------

    async def poll(self) -> bool:
        """Answer with the next changes, when there are some or the time is up."""
        changes = await self.following.next(CHANGES_AT_ONCE)
        if self.query.index:
            until = pauses.now() + pauses.with_jitter(self.query.wait)
            while not changes and not self.waiter.ending and pauses.now() < until:
                await self.waiter.nap(until - pauses.now())
                changes = await self.following.next(CHANGES_AT_ONCE)
        if self.waiter.ending is Ending.GONE:
            return True
        if self.waiter.ending is Ending.LOST:
            raise IndexGone
        if not await self.place.askers.still_good(self.exchange, WATCH):
            return False
        await self.give(changes)
        return True

    async def give(self, changes: Sequence[Change]) -> None:
        texts = self.texts(changes)
        self.place.limits.answers.demand_room(sum(map(len, texts)))
        self.status = 200
        body = b'{"index":"%b","changes":[%b]}' % (self.following.index.encode(), b",".join(texts))
        more = {INDEX_HEADER: self.following.replica.index} | pauses.stale_header(self.place.hub)
        if not await self.place.limits.answers.give(self.exchange.send, self.exchange.request, body, more.items()):
            self.told = {"outcomes": Counter({"too_slow": 1})}

    # --- The stream ---------------------------------------------------------------------------------------------

    async def stream(self) -> bool:
        """Send events until the client leaves, its token has run out, or it has to start over."""
        more = {INDEX_HEADER: self.following.replica.index} | pauses.stale_header(self.place.hub)
        headers = [*STREAM_HEADERS, *door.headers_of(self.exchange.request)]
        headers += [(name.lower().encode(), value.encode()) for name, value in more.items()]
        self.status = 200
        await self.exchange.send({"type": "http.response.start", "status": 200, "headers": headers, "trailers": False})
        self.waiter.on_end = self.hurried(pauses.cancel_current())
        try:
            try:
                await self.send_events()
            except IndexGone:
                await self.close(RESYNC)
        except (CutOff, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and self.waiter.ending is not Ending.SLOW:
                raise
            self.cut()
        return True

    def hurried(self, cancel: Callable[[], object]) -> Callable[[Ending], None]:
        """What is done about a write under way when the stream has to end."""

        def hurry(ending: Ending) -> None:
            if ending is Ending.SLOW:
                cancel()
            elif self.writing is not None and not self.writing.expired():
                self.writing.reschedule(asyncio.get_running_loop().time() + LAST_WRITE_SECONDS)

        return hurry

    def cut(self) -> None:
        metrics.cut_watchers.inc()
        self.told = {"outcomes": Counter({"too_slow": 1})}
        pauses.abort(self.exchange.send)

    async def send_events(self) -> None:
        """The first bookmark says that all there was has been sent; each other, that nothing came for a while."""
        bookmark_at = pauses.now()
        caught_up = False
        while not self.waiter.ending:
            changes = await self.following.next(CHANGES_A_WRITE)
            if not await self.place.askers.still_good(self.exchange, WATCH):
                return await self.close(EXPIRED)
            if changes:
                await self.write(b"".join(map(event, changes, self.texts(changes))))
            elif pauses.now() >= bookmark_at:
                caught_up = True
                await self.write(bookmark(self.following.index))
            else:
                await self.waiter.nap(min(bookmark_at - pauses.now(), max(self.exchange.asking.seconds_left, 0.05)))
                continue
            if caught_up:
                bookmark_at = pauses.now() + BOOKMARK_SECONDS
        await self.end()
        return None

    async def end(self) -> None:
        ending = self.waiter.ending
        if ending is Ending.LOST:
            await self.close(RESYNC)
        elif ending is Ending.STOPPING:
            await self.close(b"")
        elif ending is Ending.SLOW:
            self.cut_off()

    def cut_off(self) -> NoReturn:
        raise CutOff

    async def write(self, text: bytes, more: bool = True) -> None:
        """Raises CutOff when the client takes nothing."""
        try:
            async with asyncio.timeout(LAST_WRITE_SECONDS if self.waiter.ending else WRITE_SECONDS) as self.writing:
                await self.exchange.send({"type": "http.response.body", "body": text, "more_body": more})
                if not more:
                    await pauses.flushed(self.exchange.send)
        except TimeoutError:
            raise CutOff from None
        finally:
            self.writing = None

    async def close(self, text: bytes) -> None:
        await self.write(text, more=False)


def event(change: Change, text: bytes) -> bytes:
    """As the HTML standard writes server-sent events; JSON has no line breaks."""
    return b"id: %b\nevent: change\ndata: %b\n\n" % (change.index.encode(), text)


def bookmark(index: str) -> bytes:
    text = index.encode()
    return b'id: %b\nevent: sync\ndata: {"index":"%b"}\n\n' % (text, text)
