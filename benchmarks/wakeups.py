"""`python -m benchmarks.wakeups`: measure how soon subscribers receive a change, and what waiting ones cost in memory.

A wake-up is measured from sending the request that makes the change until its event has arrived at the same client, so
that a durable commit is part of it; the response to the writer is measured beside it.
"""

import argparse
import asyncio
import os
import random
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import uvloop

from benchmarks import pgbouncer
from benchmarks.client import is_complete
from benchmarks.memory import read_resident_bytes
from benchmarks.registry import ROOT, Registry
from benchmarks.requests import INSTANCES_PER_SERVICE, Fleet, make_registration, register_fleet

SERVICES = 100
WATCHES_PER_CALLER = 40
# Between two changes: at random, so that they do not keep step with polls of the log.
PAUSE_SECONDS = 0.04
EVENT_SECONDS = 20
ROUNDS = 20


@dataclass(frozen=True)
class Way:
    """A way from the writing process to the watching one.

    Attributes:
        pooled: whether a pooler is in front of the database, so that the log is polled: no notification passes one.
        writes_to, watches: the places of the web processes.
    """

    name: str
    pooled: bool
    writes_to: int
    watches: int


WAYS = [
    Way("one process, direct", False, 0, 0),
    Way("two processes, direct", False, 0, 1),
    Way("one process, pooled", True, 0, 0),
    Way("two processes, pooled", True, 0, 1),
]


class Stream(asyncio.Protocol):
    """An open watch. `events` counts the changes that have arrived, `arrived_at` is the time of the last one."""

    def __init__(self) -> None:
        self.events = 0
        self.arrived_at = 0.0
        self.is_synced = False
        self._tail = b""
        self.changed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        *lines, self._tail = (self._tail + data).split(b"\n")
        self.is_synced = self.is_synced or b"event: sync" in lines
        if arrived := lines.count(b"event: change"):
            self.events += arrived
            self.arrived_at = time.perf_counter()
        self.changed.set()

    async def wait_for(self, events: int) -> None:
        """Wait until it is synced and has received this number of changes."""
        async with asyncio.timeout(EVENT_SECONDS):
            while not self.is_synced or self.events < events:
                self.changed.clear()
                await self.changed.wait()


class Writer:
    """Makes changes: each gives an instance of a service another weight."""

    def __init__(self, registry: Registry, port: int) -> None:
        self.registry = registry
        self.port = port
        self.weights = iter(range(1, 65_535))

    async def __aenter__(self) -> "Writer":
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_error: object) -> None:
        self.writer.close()

    async def change(self, service: int) -> None:
        """Change an instance of the service. Raises RuntimeError when the registry refuses."""
        number = service * INSTANCES_PER_SERVICE
        body = make_registration(number) | {"weight": next(self.weights)}
        factory = self.registry.requests
        self.writer.write(factory.post("/registry/register", body, factory.fleet.team_of(number)))
        response = b""
        while not is_complete(response):
            response += await self.reader.read(65536)
        if response[9:12] != b"200":
            raise RuntimeError(f"unexpected response: {response[:600]!r}")


async def open_streams(registry: Registry, port: int, services: Sequence[int]) -> list[Stream]:
    """Open a watch for each of the services, and wait until each is synced."""
    loop, streams = asyncio.get_running_loop(), []
    for place, service in enumerate(services):
        if place % WATCHES_PER_CALLER == 0:
            bearer = registry.issue_token("watchers", subject=f"watcher-{place}")
        _, stream = await loop.create_connection(Stream, "127.0.0.1", port)
        stream.transport.write(
            f"GET /registry/watch?service=service-{service} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            f"Accept: text/event-stream\r\nAuthorization: Bearer {bearer}\r\n\r\n".encode()
        )
        streams.append(stream)
        if place % WATCHES_PER_CALLER == 0:
            await stream.wait_for(0)
    for stream in streams:
        await stream.wait_for(0)
    return streams


async def measure_wakeups(registry: Registry, way: Way, changes: int) -> tuple[list[float], list[float]]:
    """Return the milliseconds until each wake-up, and until each response."""
    (stream,) = await open_streams(registry, registry.ports[way.watches], [0])
    wakeups, responses = [], []
    async with Writer(registry, registry.ports[way.writes_to]) as writer:
        for number in range(1, changes + 1):
            await asyncio.sleep(random.uniform(0, PAUSE_SECONDS))
            began = time.perf_counter()
            await writer.change(0)
            responses.append((time.perf_counter() - began) * 1000)
            await stream.wait_for(number)
            wakeups.append((stream.arrived_at - began) * 1000)
    stream.transport.close()
    return wakeups, responses


async def measure_crowd(registry: Registry, subscribers: int) -> tuple[float, list[float]]:
    """Return the kilobytes of each subscriber, and the milliseconds after which the last one has each change."""
    before = read_resident_kilobytes(registry)
    streams = await open_streams(registry, registry.ports[0], [number % SERVICES for number in range(subscribers)])
    kilobytes = (read_resident_kilobytes(registry) - before) / subscribers
    delays = []
    async with Writer(registry, registry.ports[0]) as writer:
        for number in range(ROUNDS):
            service, rounds = number % SERVICES, number // SERVICES + 1
            told = streams[service::SERVICES]
            await asyncio.sleep(random.uniform(0, PAUSE_SECONDS))
            began = time.perf_counter()
            await asyncio.gather(writer.change(service), *(stream.wait_for(rounds) for stream in told))
            delays.append((max(stream.arrived_at for stream in told) - began) * 1000)
    if sum(stream.events for stream in streams) != ROUNDS * subscribers // SERVICES:
        raise RuntimeError("a change arrived at subscribers of another service")
    for stream in streams:
        stream.transport.close()
    return kilobytes, delays


def read_resident_kilobytes(registry: Registry) -> float:
    """Return the resident memory of the first web process."""
    return read_resident_bytes(registry.webs[0].pid) / 1024


def percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[int(share * (len(values) - 1))]


def format_delays(delays: Sequence[float]) -> str:
    return f"{percentile(delays, 0.5):7.1f} {percentile(delays, 0.99):7.1f}"


def measure_all(registry: Registry, changes: int, subscribers: int) -> Iterator[str]:
    """Yield a line for each measurement."""
    registry.environment["REGISTRY_MAX_CONNECTIONS_PER_ADDRESS"] = "0"
    registry.start_web(1, 2)
    register_fleet(registry.ports[0], registry.requests)
    for way in WAYS:
        with database_of(registry, way):
            registry.start_web(2, 2)
            wakeups, responses = uvloop.run(measure_wakeups(registry, way, changes))
            registry.stop_web()
        later = [wakeup - response for wakeup, response in zip(wakeups, responses, strict=True)]
        yield f"{way.name:24} {'  '.join(map(format_delays, (wakeups, responses, later)))}"
    registry.start_web(1, 2)
    kilobytes, delays = uvloop.run(measure_crowd(registry, subscribers))
    yield (
        f"{subscribers} subscribers of {SERVICES} services: the last one of a service has a change after "
        f"{percentile(delays, 0.5):.1f} ms, at most {max(delays):.1f} ms of {ROUNDS}; {kilobytes:.1f} KB each"
    )


@contextmanager
def database_of(registry: Registry, way: Way) -> Iterator[None]:
    """Start web processes with the database of a way: behind PgBouncer where it is installed and the way is pooled."""
    before = dict(registry.environment)
    registry.environment["DATABASE_POOLED"] = str(way.pooled).lower()
    program = pgbouncer.find_program()
    try:
        if way.pooled and program:
            with pgbouncer.PgBouncer(program, registry.data, registry.postgres.url) as pooler:
                registry.environment["DATABASE_URL"] = pooler.url
                yield
        else:
            yield
    finally:
        registry.environment = before


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.wakeups", description=__doc__)
    parser.add_argument("--checkout", type=Path, default=ROOT, help="the code that is measured; this one by default")
    parser.add_argument("--changes", type=int, default=1000, help="for each way from writer to subscriber")
    parser.add_argument("--subscribers", type=int, default=5000, help="in one process")
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}. Durable commits, loopback.")
    print(f"Pooled: {'by PgBouncer' if pgbouncer.find_program() else 'by polling, as PgBouncer is not installed'}.")
    columns = "  ".join(f"{name:>7} {'p99':>7}" for name in ("wake-up", "reply", "later"))
    print(f"{'ms from the request on':24} {columns}", flush=True)
    with tempfile.TemporaryDirectory(prefix="registry-wakeups-") as place:
        directory = Path(place)
        directory.chmod(0o755)
        fleet = Fleet(SERVICES * INSTANCES_PER_SERVICE)
        with Registry(directory / "registry", fleet, options.checkout) as registry:
            for line in measure_all(registry, options.changes, options.subscribers):
                print(line, flush=True)


if __name__ == "__main__":
    main()
