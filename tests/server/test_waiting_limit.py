"""As many as one web process lets wait, and the one past them."""

import asyncio
import resource
from collections import Counter
from collections.abc import Iterator

import pytest

from service_registry.asgi.limits import SUBSCRIBERS_PER_PROCESS
from tests.client import token
from tests.server.event_stream import EventStream, WatchRefused
from tests.server.registry import Caller, Registry
from tests.waiting import wait_for

# What shells and service managers give a process that asks for nothing.
USUAL_FILES = 1024


@pytest.fixture
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """Started with as many open files as is usual, and tried by a process that may have as many as it needs."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert before[1] >= SUBSCRIBERS_PER_PROCESS + USUAL_FILES, "the hard limit of open files is too low to try this"
    resource.setrlimit(resource.RLIMIT_NOFILE, (USUAL_FILES, before[1]))
    try:
        with Registry(tmp_path_factory.mktemp("limit")) as running:
            resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
            yield running
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def asking(caller: Caller, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", caller.connection.port)
    head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    writer.write(f"{head}Authorization: {caller.headers['Authorization']}\r\n\r\n".encode())
    return reader, writer


async def waits(registry: Registry, count: int) -> None:
    await asyncio.to_thread(wait_for, lambda: registry.read_metric("registry_subscribers") == count, 60)


async def crowd(registry: Registry, team: Caller, paths: list[str]) -> Counter[bytes]:
    """Let so many wait, ask for more, then change the service of the first half. Returns how those were answered; the
    others leave."""
    clients = []
    for number in range(SUBSCRIBERS_PER_PROCESS):
        clients.append(await asking(team, paths[number % 2]))
        if number % 250 == 249:  # the web server's queue of new connections is no part of this
            await waits(registry, number + 1)
    team.connection.close()  # it has been quiet for longer than the web server keeps it
    await asyncio.to_thread(refused, registry, team, paths[0])
    await asyncio.to_thread(team.register, "one", weight=7)
    statuses = Counter([await reader.readexactly(12) for reader, _writer in clients[::2]])
    await waits(registry, SUBSCRIBERS_PER_PROCESS // 2)
    for _reader, writer in clients:
        writer.close()
    return statuses


def refused(registry: Registry, team: Caller, path: str) -> None:
    """The one past the limit, however it asks; who does not wait is served."""
    index = path.partition("index=")[2]
    for each in (path, f"/registry/watch?index={index}", f"/registry/services?index={index}"):
        answer = team.call("GET", each)
        assert (answer.status, answer.json["code"], answer.headers["retry-after"]) == (429, "rate_limited", "5"), each
    with pytest.raises(WatchRefused) as stream:
        EventStream(registry.ports[0], token("registry-readers"))
    assert (stream.value.status, stream.value.problem["code"]) == (429, "rate_limited")
    for each in ("/registry/services/one", "/registry/services", "/livez"):
        assert team.call("GET", each).status == 200, each
    assert registry.read_metric("registry_subscribers") == SUBSCRIBERS_PER_PROCESS


def test_a_process_lets_so_many_wait(registry: Registry, team: Caller, reader: Caller) -> None:
    team.register("one")
    index = team.register("other")
    paths = [f"/registry/services/{name}?wait=5m&index={index}" for name in ("one", "other")]
    assert asyncio.run(crowd(registry, team, paths)) == {b"HTTP/1.1 200": SUBSCRIBERS_PER_PROCESS // 2}
    wait_for(lambda: registry.read_metric("registry_subscribers") == 0)
    with registry.blocked_request(reader, f"/registry/services/other?wait=5m&index={index}") as answer:
        team.register("other", weight=7)
        assert answer().status == 200
