"""A client that costs little: raw sockets kept alive, each sending its next request when it has its answer."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast

import uvloop

Requests = Iterator[bytes]
PATIENCE_SECONDS = 20


@dataclass
class Tally:
    """Seconds from request to answer, in the order of the answers."""

    latencies: list[float] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        return len(self.latencies) / self.seconds

    def percentile(self, share: float) -> float:
        """In milliseconds."""
        return sorted(self.latencies)[int(share * (len(self.latencies) - 1))] * 1000


class Connection(asyncio.Protocol):
    """Sends until `deadline`, and ends with its last answer."""

    def __init__(self, requests: Requests, status: bytes, tally: Tally, deadline: float) -> None:
        self.requests = requests
        self.status = status
        self.tally = tally
        self.deadline = deadline
        self.buffer = b""
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.send()

    def send(self) -> None:
        self.sent_at = time.perf_counter()
        if self.sent_at < self.deadline:
            self.transport.write(next(self.requests))
        else:
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if not complete(self.buffer):
            return
        if self.buffer[9:12] != self.status:
            self.end(RuntimeError(f"an answer that was not awaited: {self.buffer[:600]!r}"))
            return
        self.tally.latencies.append(time.perf_counter() - self.sent_at)
        self.buffer = b""
        self.send()

    def connection_lost(self, error: Exception | None) -> None:
        self.end(error)

    def end(self, error: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_exception(error) if error else self.ended.set_result(None)


def complete(answer: bytes) -> bool:
    """Whether the answer has come whole. Names of headers come in lower case from this server."""
    head = answer.find(b"\r\n\r\n")
    if head < 0:
        return False
    at = answer.find(b"content-length: ", 0, head)
    length = int(answer[at + 16 : answer.index(b"\r", at)]) if at >= 0 else 0
    return len(answer) >= head + 4 + length


def drive(ports: Sequence[int], connections: int, seconds: float, status: int, make: Callable[[], Requests]) -> Tally:
    """Load the ports with so many connections in all; every answer must have `status`. Raises RuntimeError."""
    return uvloop.run(driven(ports, connections, seconds, str(status).encode(), make))


async def driven(
    ports: Sequence[int], connections: int, seconds: float, status: bytes, make: Callable[[], Requests]
) -> Tally:
    tally, loop, requests = Tally(), asyncio.get_running_loop(), make()
    open_ones, began = [], time.perf_counter()
    for number in range(connections):
        _, connection = await loop.create_connection(
            lambda: Connection(requests, status, tally, began + seconds), "127.0.0.1", ports[number % len(ports)]
        )
        open_ones.append(connection)
    async with asyncio.timeout(seconds + PATIENCE_SECONDS):
        await asyncio.gather(*(connection.ended for connection in open_ones))
    tally.seconds = time.perf_counter() - began
    return tally
