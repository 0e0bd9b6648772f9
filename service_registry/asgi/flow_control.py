"""What is on its way to clients: written as fast as they take it, so that slow ones hold little memory of ours."""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Iterable
from typing import NamedTuple

from asgiref.typing import ASGISendCallable, ASGISendEvent, HTTPResponseStartEvent

from service_registry import metrics
from service_registry.asgi import request as door
from service_registry.asgi import transport
from service_registry.exceptions import TooBusy

# Whoever takes nothing for so long is cut off.
WRITE_SECONDS = 30.0
# The same once this process is to end: it waits for all of them.
LAST_WRITE_SECONDS = 2.0
# As much as the web server's own buffer takes before it lets us wait.
SLICE_BYTES = 64 * 1024
# Of an answer that may be large, and is not there yet.
UNKNOWN_BYTES = SLICE_BYTES + 1
# Of all answers under way in one process; one that two wait for counts once.
AT_MOST_BYTES = 64 * 1024 * 1024
# Once there is so much: how long a client may take nothing, and how long one who asks waits for room. It is longer, so
# that those who only hold on to answers cannot keep others from theirs.
STALLED_SECONDS = 1.0
ROOM_SECONDS = 2.5
ROOM_POLL_SECONDS = 0.05


class CutOff(Exception):
    """The client does not take what it asked for."""


class Outlet:
    """ASGI's `send` to a client that has to take what it asked for.

    Arguments:
        send: the web server's.
        answers: those of this process, of which this is one while it holds memory.
    """

    def __init__(self, send: ASGISendCallable, answers: "Answers") -> None:
        self.send = send
        self.answers = answers
        self.seconds = answers.write_seconds
        # On the monotonic clock: when it took something last, as far as the web server tells.
        self.taken_at = transport.now()
        self.is_cut = False
        self._deadline: asyncio.Timeout | None = None

    async def __call__(self, message: ASGISendEvent) -> None:
        """Send it as soon as the client has taken most of what came before; the end of a body until its side has taken
        all. Raises CutOff when it takes nothing for too long, or was cut meanwhile."""
        await self.in_time(self.send(message))
        if message["type"] == "http.response.body" and not message["more_body"]:
            await self.flush()

    async def flush(self) -> None:
        """Until the client's side has taken all. Raises CutOff."""
        await self.in_time(transport.flushed(self.send))

    async def in_time(self, taking: Awaitable[None]) -> None:
        try:
            async with asyncio.timeout(min(self.seconds, self.answers.write_seconds)) as self._deadline:
                self.answers.writing.add(self)
                await taking
        except TimeoutError:
            raise CutOff from None
        finally:
            self.answers.writing.discard(self)
            self._deadline = None
        if self.is_cut:
            raise CutOff
        self.answers.note_taken(self)

    async def write(self, text: bytes, more: bool = True) -> None:
        """Send a part of the body. Raises CutOff."""
        await self({"type": "http.response.body", "body": text, "more_body": more})

    def hurry(self) -> None:
        """The process is to end: a write under way, and each after it, has less time."""
        self.seconds = min(self.seconds, LAST_WRITE_SECONDS)
        if self._deadline is not None and not self._deadline.expired():
            self._deadline.reschedule(asyncio.get_running_loop().time() + self.seconds)

    def cut(self) -> None:
        """Close the connection without what it has not taken. Who waits for it to take more finds out. An answer that
        is complete, and has another behind it, is left to that one."""
        if not transport.is_followed(self.send):
            self.is_cut = True
            transport.abort(self.send)


class Held(NamedTuple):
    """What an answer keeps in memory: a text that others may share, or something of its own; and how many bytes."""

    what: object
    size: int


class Answers:
    """The answers that are under way, and the memory they hold: texts, and pages of the log that streams have read for
    themselves. Belongs to the event loop.

    There is room for another while they have less than `at_most_bytes`, so that they never have more than that and one
    answer. Small ones need no room: the web server holds that much of each connection anyway.

    Arguments:
        at_most_bytes: of all answers.
        write_seconds: how long a client may take nothing.
    """

    def __init__(self, at_most_bytes: int = AT_MOST_BYTES, write_seconds: float = WRITE_SECONDS) -> None:
        self.at_most_bytes = at_most_bytes
        self.write_seconds = write_seconds
        self.held_bytes = 0
        # Who took something last comes last.
        self.under_way: OrderedDict[Outlet, Held] = OrderedDict()
        # Those whose client is waited for, whatever they hold.
        self.writing: set[Outlet] = set()
        self._shares: Counter[int] = Counter()
        self._turn = asyncio.Lock()

    async def wait_for_room(self, size: int) -> None:
        """Until another answer of so many bytes may be put together, or taken from where it is kept, and at once after
        this. Raises TooBusy."""
        if self.has_room(size):
            return
        try:
            async with asyncio.timeout(ROOM_SECONDS), self._turn:
                while not self.makes_room(size):
                    await asyncio.sleep(ROOM_POLL_SECONDS)
        except TimeoutError:
            raise TooBusy from None

    def demand_room(self, size: int) -> None:
        """The same for those who cannot wait, since they hold memory themselves. Raises TooBusy."""
        if not self.makes_room(size):
            raise TooBusy

    def has_room_for(self, text: bytes) -> bool:
        """The same for a text that is there already; one that others are sent counts no more for another."""
        return self.has_room(len(text)) or id(text) in self._shares

    def has_room(self, size: int) -> bool:
        return size <= SLICE_BYTES or self.held_bytes < self.at_most_bytes

    def makes_room(self, size: int) -> bool:
        """Cut those who have taken nothing for a while, for the longest first, as far as it has to be."""
        while not self.has_room(size):
            slowest = next(iter(self.under_way))
            if transport.now() - slowest.taken_at < STALLED_SECONDS:
                return False
            slowest.cut()
            self.leave(slowest)
        return True

    def admits(self, outlet: Outlet, size: int) -> bool:
        """Whether a stream may hold a page of so many bytes, in the place of the one before; it does from now on."""
        self.leave(outlet)
        if not self.makes_room(size):
            return False
        self.enter(outlet, Held(object(), size))
        return True

    async def give(
        self, outlet: Outlet, request: door.Arrived, text: bytes, more: Iterable[tuple[str, str]] = ()
    ) -> bool:
        """Send a whole answer that is JSON already, and there was room for. False when its client was cut off."""
        return await self.deliver(outlet, door.start_of(request, len(text), more), text)

    async def pass_on(self, send: ASGISendCallable, start: HTTPResponseStartEvent, body: bytes) -> bool:
        """The same for one that has to be sent, as it says what was done, or is there already. Room is made for it
        where it can be."""
        self.makes_room(len(body))
        return await self.deliver(Outlet(send, self), start, body)

    async def deliver(self, outlet: Outlet, start: HTTPResponseStartEvent, body: bytes) -> bool:
        self.leave(outlet)
        try:
            if len(body) <= SLICE_BYTES and not transport.unsent_bytes(outlet.send):
                await self.deliver_small(outlet, start, body)
            else:
                self.enter(outlet, Held(body, len(body)))
                await self.deliver_large(outlet, start, body)
        except CutOff:
            outlet.cut()
            metrics.slow_clients.inc()
            return False
        finally:
            self.leave(outlet)
        return True

    async def deliver_small(self, outlet: Outlet, start: HTTPResponseStartEvent, body: bytes) -> None:
        """The web server takes it in whole, and nearly always the client's side does, too: a deadline costs more than
        all else here, and is set only where it does not."""
        await outlet.send(start)
        await outlet.send({"type": "http.response.body", "body": body, "more_body": False})
        if transport.unsent_bytes(outlet.send):
            await outlet.flush()

    async def deliver_large(self, outlet: Outlet, start: HTTPResponseStartEvent, body: bytes) -> None:
        """Slice by slice."""
        await outlet(start)
        for at in range(0, max(len(body), 1), SLICE_BYTES):
            await outlet.write(body[at : at + SLICE_BYTES], more=at + SLICE_BYTES < len(body))

    def enter(self, outlet: Outlet, held: Held) -> None:
        outlet.taken_at = transport.now()
        self.under_way[outlet] = held
        self._shares[id(held.what)] += 1
        if self._shares[id(held.what)] == 1:
            self.held_bytes += held.size

    def note_taken(self, outlet: Outlet) -> None:
        outlet.taken_at = transport.now()
        if outlet in self.under_way:
            self.under_way.move_to_end(outlet)

    def leave(self, outlet: Outlet) -> None:
        """Also for one that holds nothing, or was cut and left with it."""
        held = self.under_way.pop(outlet, None)
        if held is None:
            return
        self._shares[id(held.what)] -= 1
        if not self._shares[id(held.what)]:
            del self._shares[id(held.what)]
            self.held_bytes -= held.size

    def hurry(self) -> None:
        """The process is to end."""
        self.write_seconds = LAST_WRITE_SECONDS
        for outlet in self.writing:
            outlet.hurry()
