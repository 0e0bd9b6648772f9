"""Flow control: disconnect clients that stop reading, and bound response memory.

A watch also ends when its backlog grows too large: see `replica/subscribers.py`.
"""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Awaitable
from typing import NamedTuple

from asgiref.typing import ASGISendCallable, ASGISendEvent

from service_registry import metrics
from service_registry.asgi import transport
from service_registry.asgi.headers import Head
from service_registry.asgi.waiting import now
from service_registry.exceptions import TooBusy

# A client that reads nothing for this long is disconnected.
WRITE_SECONDS = 30.0
# The same while the process shuts down, which waits for all responses.
SHUTDOWN_WRITE_SECONDS = 2.0
# One write: as much as uvicorn buffers before it makes a sender wait.
SLICE_BYTES = 64 * 1024
# The size assumed of a response that may be large and is not rendered yet.
UNKNOWN_BYTES = SLICE_BYTES + 1
# All responses in flight in one process; a body that several clients share counts once.
MAX_IN_FLIGHT_BYTES = 64 * 1024 * 1024
# When that is reached: how long a client may read nothing, and how long a new response waits for capacity. The second
# is longer, so that clients that stall cannot keep others from their responses.
STALLED_SECONDS = 1.0
CAPACITY_SECONDS = 2.5
CAPACITY_POLL_SECONDS = 0.05


class ClientTooSlow(Exception):
    """The client does not read the response in time."""


class ClientWriter:
    """ASGI's `send` with a deadline for the client to read what is sent.

    Arguments:
        send: the server's.
        responses: the responses in flight, which this is one of while it holds memory.
    """

    def __init__(self, send: ASGISendCallable, responses: "ResponsesInFlight") -> None:
        self.send = send
        self.responses = responses
        self.seconds = responses.write_seconds
        # On the monotonic clock: when the client last made progress, as far as the server's buffer shows.
        self.progress_at = now()
        self.is_aborted = False
        self._deadline: asyncio.Timeout | None = None

    async def __call__(self, message: ASGISendEvent) -> None:
        """Send a message once the client has read most of what came before it.

        At the end of a body it waits until the client has read everything. Raises ClientTooSlow when the client reads
        nothing for too long, or was disconnected meanwhile.
        """
        await self.with_deadline(self.send(message))
        if message["type"] == "http.response.body" and not message["more_body"]:
            await self.flush()

    async def flush(self) -> None:
        """Wait until the client has read everything. Raises ClientTooSlow."""
        await self.with_deadline(transport.flush(self.send))

    async def with_deadline(self, sending: Awaitable[None]) -> None:
        try:
            async with asyncio.timeout(min(self.seconds, self.responses.write_seconds)) as self._deadline:
                self.responses.writing.add(self)
                await sending
        except TimeoutError:
            raise ClientTooSlow from None
        finally:
            self.responses.writing.discard(self)
            self._deadline = None
        if self.is_aborted:
            raise ClientTooSlow
        self.responses.note_progress(self)

    async def write(self, body: bytes, more: bool = True) -> None:
        """Send a part of the body. Raises ClientTooSlow."""
        await self({"type": "http.response.body", "body": body, "more_body": more})

    def hurry(self) -> None:
        """Shorten the deadline of the write under way and of later ones, for a shutdown."""
        self.seconds = min(self.seconds, SHUTDOWN_WRITE_SECONDS)
        if self._deadline is not None and not self._deadline.expired():
            self._deadline.reschedule(asyncio.get_running_loop().time() + self.seconds)

    def abort(self) -> None:
        """Disconnect the client and discard what it has not read.

        A write under way raises ClientTooSlow. A response that is complete, with another behind it on its
        connection, is left to that one.
        """
        if not transport.is_superseded(self.send):
            self.is_aborted = True
            transport.abort(self.send)


class Held(NamedTuple):
    """The memory that a response holds: an object and its size in bytes.

    Responses may share the object.
    """

    what: object
    size: int


class ResponsesInFlight:
    """The responses in flight and the memory they hold.

    Memory is held by bodies, and by pages of the log that watches have read. There is capacity for another response
    while they hold less than `max_bytes`, so that they never hold more than that and one response. Responses to arrays
    and to writes that Django answers exist before they are counted: they are not refused, and may exceed this bound.
    Small responses need no capacity: the server buffers that much for each connection anyway. Belongs to the event
    loop.

    Arguments:
        max_bytes: of all responses.
        write_seconds: how long a client may read nothing.
    """

    def __init__(self, max_bytes: int = MAX_IN_FLIGHT_BYTES, write_seconds: float = WRITE_SECONDS) -> None:
        self.max_bytes = max_bytes
        self.write_seconds = write_seconds
        self.held_bytes = 0
        # The client that made progress last comes last.
        self.in_flight: OrderedDict[ClientWriter, Held] = OrderedDict()
        # Writers that wait for their client, whatever they hold.
        self.writing: set[ClientWriter] = set()
        self._shares: Counter[int] = Counter()
        self._turn = asyncio.Lock()

    def has_capacity(self, size: int) -> bool:
        """Return whether a response of `size` bytes may be rendered now.

        It may when it is small, or while less than `max_bytes` is held.
        """
        return size <= SLICE_BYTES or self.held_bytes < self.max_bytes

    def has_capacity_for(self, body: bytes) -> bool:
        """Return whether an existing body may be sent.

        One that is being sent to others costs no more memory.
        """
        return self.has_capacity(len(body)) or id(body) in self._shares

    def free_capacity(self, size: int) -> bool:
        """Disconnect stalled clients, the longest first, until there is capacity.

        Returns whether there is. A client that has read everything has not stalled, however late the event loop
        notices: after the process was frozen every client looks stalled.
        """
        for writer in list(self.in_flight):
            if self.has_capacity(size) or now() - writer.progress_at < STALLED_SECONDS:
                break
            if transport.unsent_bytes(writer.send):
                writer.abort()
                self.release(writer)
        return self.has_capacity(size)

    def require_capacity(self, size: int) -> None:
        """Raise TooBusy unless there is capacity.

        It is for requests that hold memory themselves, and so must not wait.
        """
        if not self.free_capacity(size):
            raise TooBusy

    async def wait_for_capacity(self, size: int) -> None:
        """Wait for capacity for a response of `size` bytes. Raises TooBusy.

        The capacity is not reserved: render the response, or take it from a cache, right after.
        """
        if self.has_capacity(size):
            return
        try:
            async with asyncio.timeout(CAPACITY_SECONDS), self._turn:
                while not self.free_capacity(size):
                    await asyncio.sleep(CAPACITY_POLL_SECONDS)
        except TimeoutError:
            raise TooBusy from None

    def reserve(self, writer: ClientWriter, size: int) -> bool:
        """Reserve memory for a page of the log; return whether there was capacity.

        The page takes the place of the page before.
        """
        self.release(writer)
        if not self.free_capacity(size):
            return False
        self.hold(writer, Held(object(), size))
        return True

    async def deliver(self, send: ASGISendCallable, head: Head, body: bytes) -> bool:
        """Send a whole response; return False when its client read too slowly.

        That client has been disconnected.
        """
        at_once = len(body) <= SLICE_BYTES and transport.respond(send, head.status, head.lines, body)
        # The client nearly always reads a small response at once, too: a deadline would cost more than all else here.
        if at_once and not transport.unsent_bytes(send):
            return True
        writer = ClientWriter(send, self)
        try:
            await (writer.flush() if at_once else self.deliver_large(writer, head, body))
        except ClientTooSlow:
            writer.abort()
            metrics.slow_clients.inc()
            return False
        finally:
            self.release(writer)
        return True

    async def deliver_large(self, writer: ClientWriter, head: Head, body: bytes) -> None:
        """Send the response slice by slice."""
        self.hold(writer, Held(body, len(body)))
        await writer(head.as_message())
        for at in range(0, max(len(body), 1), SLICE_BYTES):
            await writer.write(body[at : at + SLICE_BYTES], more=at + SLICE_BYTES < len(body))

    def hold(self, writer: ClientWriter, held: Held) -> None:
        writer.progress_at = now()
        self.in_flight[writer] = held
        self._shares[id(held.what)] += 1
        if self._shares[id(held.what)] == 1:
            self.held_bytes += held.size

    def note_progress(self, writer: ClientWriter) -> None:
        writer.progress_at = now()
        if writer in self.in_flight:
            self.in_flight.move_to_end(writer)

    def release(self, writer: ClientWriter) -> None:
        """Release the memory of a response, if it still holds some."""
        held = self.in_flight.pop(writer, None)
        if held is None:
            return
        self._shares[id(held.what)] -= 1
        if not self._shares[id(held.what)]:
            del self._shares[id(held.what)]
            self.held_bytes -= held.size

    def hurry(self) -> None:
        """Shorten all deadlines: the process shuts down."""
        self.write_seconds = SHUTDOWN_WRITE_SECONDS
        for writer in self.writing:
            writer.hurry()
