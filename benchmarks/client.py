"""A load generator that costs little CPU: keep-alive sockets, each with one request at a time."""

import asyncio
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast

import uvloop

Requests = Iterator[bytes]
# For the last responses, once the time is up.
DRAIN_SECONDS = 20


@dataclass
class LoadResult:
    """Latencies in seconds, in the order of the responses, and the time that all of them took."""

    latencies: list[float] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Requests per second."""
        return len(self.latencies) / self.seconds

    def percentile(self, share: float) -> float:
        """In milliseconds."""
        return sorted(self.latencies)[int(share * (len(self.latencies) - 1))] * 1000

    def __add__(self, other: "LoadResult") -> "LoadResult":
        return LoadResult(self.latencies + other.latencies, self.seconds + other.seconds)


class Connection(asyncio.Protocol):
    """One connection. It sends requests until `deadline`, and closes after the last response."""

    def __init__(self, requests: Requests, status: bytes, result: LoadResult, deadline: float) -> None:
        self.requests = requests
        self.status = status
        self.result = result
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
        if not is_complete(self.buffer):
            return
        if self.buffer[9:12] != self.status:
            self.end(RuntimeError(f"unexpected response: {self.buffer[:600]!r}"))
            return
        self.result.latencies.append(time.perf_counter() - self.sent_at)
        self.buffer = b""
        self.send()

    def connection_lost(self, error: Exception | None) -> None:
        self.end(error)

    def end(self, error: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_exception(error) if error else self.ended.set_result(None)


FRAMING = re.compile(rb"\r\n(?:content-length: (\d+)|(transfer-encoding: chunked))", re.IGNORECASE)


def is_complete(response: bytes) -> bool:
    """Return whether the whole response has arrived (RFC 9112, section 6.3)."""
    head = response.find(b"\r\n\r\n")
    if head < 0:
        return False
    found = FRAMING.search(response, 0, head)
    if found and found[2]:
        return response.endswith(b"\r\n0\r\n\r\n")
    return len(response) >= head + 4 + int(found[1] if found else 0)


def generate_load(
    ports: Sequence[int], connections: int, seconds: float, status: int, make_requests: Callable[[], Requests]
) -> LoadResult:
    """Load the ports for `seconds`. Raises RuntimeError for a response with another status.

    Arguments:
        connections: how many in all, spread over the ports.
    """
    return uvloop.run(run_connections(ports, connections, seconds, str(status).encode(), make_requests()))


async def run_connections(
    ports: Sequence[int], connections: int, seconds: float, status: bytes, requests: Requests
) -> LoadResult:
    result, loop = LoadResult(), asyncio.get_running_loop()
    opened, began = [], time.perf_counter()
    for number in range(connections):
        _, connection = await loop.create_connection(
            lambda: Connection(requests, status, result, began + seconds), "127.0.0.1", ports[number % len(ports)]
        )
        opened.append(connection)
    async with asyncio.timeout(seconds + DRAIN_SECONDS):
        await asyncio.gather(*(connection.ended for connection in opened))
    result.seconds = time.perf_counter() - began
    return result
