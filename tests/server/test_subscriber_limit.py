"""The limit of watches and blocking reads that wait in one web process."""

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

# The soft limit that shells and service managers give by default.
USUAL_FILES = 1024


@pytest.fixture
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """Started with the usual soft limit of open files, under a test process with the hard one."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = SUBSCRIBERS_PER_PROCESS + USUAL_FILES
    assert before[1] >= needed, "the hard limit of open files is too low for this test"
    resource.setrlimit(resource.RLIMIT_NOFILE, (USUAL_FILES, before[1]))
    try:
        with Registry(tmp_path_factory.mktemp("limit"), variables={"REGISTRY_MAX_SHARE_PER_CALLER": "1"}) as running:
            resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
            yield running
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def send_request(caller: Caller, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", caller.connection.port)
    head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    writer.write(f"{head}Authorization: {caller.headers['Authorization']}\r\n\r\n".encode())
    return reader, writer


async def wait_for_subscribers(registry: Registry, count: int) -> None:
    await asyncio.to_thread(wait_for, lambda: registry.read_metric("registry_subscribers") == count)


async def fill_process(registry: Registry, team: Caller, paths: list[str]) -> Counter[bytes]:
    """Have as many requests wait as may, send further ones, and change the service of the first half.

    Returns the responses of the first half by their status line. The others close their connections.
    """
    clients = []
    for number in range(SUBSCRIBERS_PER_PROCESS):
        clients.append(await send_request(team, paths[number % 2]))
        if number % 250 == 249:  # the server's queue of new connections is not what this tests
            await wait_for_subscribers(registry, number + 1)
    await asyncio.to_thread(assert_limit_is_enforced, registry, team, paths[0])
    await asyncio.to_thread(team.register, "one", weight=7)
    statuses = Counter([await reader.readexactly(12) for reader, _writer in clients[::2]])
    await wait_for_subscribers(registry, SUBSCRIBERS_PER_PROCESS // 2)
    for _reader, writer in clients:
        writer.close()
    return statuses


def assert_limit_is_enforced(registry: Registry, team: Caller, path: str) -> None:
    """One more is refused in each form; a request that does not wait is answered."""
    index = path.partition("index=")[2]
    for each in (path, f"/registry/watch?index={index}", f"/registry/services?index={index}"):
        reply = team.call("GET", each)
        assert (reply.status, reply.json["code"], reply.headers["retry-after"]) == (429, "rate_limited", "5"), each
    with pytest.raises(WatchRefused) as refused:
        EventStream(registry.ports[0], token("registry-readers"))
    assert (refused.value.status, refused.value.problem["code"]) == (429, "rate_limited")
    for each in ("/registry/services/one", "/registry/services", "/livez"):
        assert team.call("GET", each).status == 200, each
    assert registry.read_metric("registry_subscribers") == SUBSCRIBERS_PER_PROCESS


def test_process_refuses_subscribers_above_its_limit(registry: Registry, team: Caller, reader: Caller) -> None:
    team.register("one")
    index = team.register("other")
    paths = [f"/registry/services/{name}?wait=5m&index={index}" for name in ("one", "other")]
    assert asyncio.run(fill_process(registry, team, paths)) == {b"HTTP/1.1 200": SUBSCRIBERS_PER_PROCESS // 2}
    wait_for(lambda: registry.read_metric("registry_subscribers") == 0)
    with registry.blocked_request(reader, f"/registry/services/other?wait=5m&index={index}") as receive:
        team.register("other", weight=7)
        assert receive().status == 200
