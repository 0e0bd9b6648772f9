"""Clients that read large responses from memory slowly or not at all, and the clients beside them."""

import contextlib
import itertools
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from service_registry.asgi.flow_control import MAX_IN_FLIGHT_BYTES, SLICE_BYTES
from tests.client import Answer, registration, token
from tests.server.change_log import repeat_newest_change
from tests.server.event_stream import follow_changes
from tests.server.memory import read_peak_bytes, reset_peak
from tests.server.registry import Caller, Registry
from tests.waiting import wait_for

READERS = 50
NAME = "large"
TAGS = [f"tag-{number}" for number in range(READERS)]
RESPONSE_BYTES = 5_000_000
PAGE_BYTES = 12_500_000
# The web server's buffer of a connection, and the response's headers.
BUFFERED_BYTES = 3 * SLICE_BYTES


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """It has a service whose response has 5 MB, and the same instances under each of fifty tags."""
    with Registry(tmp_path_factory.mktemp("slow")) as running:
        team = running.caller("registry-services", "team")
        metadata = {f"key-{number}": "x" * 480 for number in range(2)}
        for part in range(6):
            items = [
                registration(NAME, f"{part}-{number}", tags=TAGS, metadata=metadata, ttl_seconds=3600)
                for number in range(500)
            ]
            assert team.call("POST", "/registry/register", items).status == 200
        assert len(team.call("GET", f"/registry/services/{NAME}").body) > RESPONSE_BYTES
        yield running


class SlowReader:
    """Sends a request, and reads nothing of the response but its status. Its socket buffers little."""

    def __init__(self, caller: Caller, path: str, headers: str = "") -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.settimeout(60)
        self.socket.connect(("127.0.0.1", caller.connection.port))
        head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}"
        self.socket.sendall(f"{head}Authorization: {caller.headers['Authorization']}\r\n\r\n".encode())

    def read_status(self) -> int:
        return int(self.socket.recv(12).removeprefix(b"HTTP/1.1 "))

    def close(self) -> None:
        self.socket.close()


@contextlib.contextmanager
def slow_readers(caller: Caller, paths: list[str], headers: str = "") -> Iterator[list[SlowReader]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(contextlib.closing(SlowReader(caller, path, headers))) for path in paths]


@contextlib.contextmanager
def liveness_probes(registry: Registry) -> Iterator[None]:
    """Call /livez again and again on a thread. Raises when it fails once, or never responds."""
    caller, ended, succeeded = registry.anonymous_caller(), threading.Event(), []

    def probe() -> None:
        while not ended.wait(0.005) and caller.call("GET", "/livez").status == 200:
            succeeded.append(True)

    thread = threading.Thread(target=probe)
    thread.start()
    try:
        yield
        assert thread.is_alive()
    finally:
        ended.set()
        thread.join()
    assert succeeded


def read_whole(caller: Caller, path: str) -> Answer | None:
    """Return the response, or None while there is no room for it, which the contract's 503 says."""
    reply = caller.call("GET", path)
    if reply.status == 503:
        assert (reply.json["code"], reply.headers["retry-after"]) == ("unavailable", "1")
        return None
    assert reply.status == 200
    return reply


def test_slow_readers_of_discovery_are_bounded_in_memory(registry: Registry, team: Caller, reader: Caller) -> None:
    """All wait for one change, and then read nothing of 5 MB each. Another client reads as much."""
    path = f"/registry/services/{NAME}"
    index = reader.call("GET", path).json["index"]
    waiting = registry.read_metric('registry_subscribers{kind="read"}')
    disconnected = registry.read_metric("registry_slow_clients_disconnected_total")
    before = reset_peak(registry)
    with (
        slow_readers(reader, [f"{path}?index={index}&wait=5m&tag={tag}" for tag in TAGS]) as slow,
        liveness_probes(registry),
    ):
        wait_for(lambda: registry.read_metric('registry_subscribers{kind="read"}') == waiting + READERS)
        team.register(NAME, "last")
        reply = wait_for(lambda: read_whole(reader, path))
        assert len(reply.json["instances"]) == 3001
        statuses = Counter(each.read_status() for each in slow)
    grown = read_peak_bytes(registry) - before
    print(f"{READERS} slow readers: +{grown / 1e6:.0f} MB, {dict(statuses)}")
    assert set(statuses) <= {200, 503}
    # Without a bound it is all that they ask for. Beside responses in flight, the response cache keeps 32 MB.
    assert grown < READERS * RESPONSE_BYTES * 0.6
    assert registry.read_metric("registry_slow_clients_disconnected_total") > disconnected


@pytest.mark.parametrize("source", ["memory", "the database"])
def test_slow_readers_of_the_list_are_bounded_in_memory(registry: Registry, reader: Caller, source: str) -> None:
    """All send their requests at once, while there is room, and each for another page."""
    disconnected = registry.read_metric("registry_slow_clients_disconnected_total")
    before = reset_peak(registry)
    with registry.stopped_postgres() if source == "memory" else contextlib.nullcontext():
        path = f"/registry/services?name={NAME}"
        wait_for(lambda: ("x-registry-stale" in reader.call("GET", path).headers) == (source == "memory"))
        with slow_readers(reader, [f"{path}&tag={tag}" for tag in TAGS]) as slow, liveness_probes(registry):
            statuses = Counter(each.read_status() for each in slow)
            assert wait_for(lambda: read_whole(reader, path)).json["services"]
    grown = read_peak_bytes(registry) - before
    print(f"{READERS} slow readers of lists from {source}: +{grown / 1e6:.0f} MB, {dict(statuses)}")
    assert set(statuses) <= {200, 503}
    assert grown < READERS * RESPONSE_BYTES * 0.6
    assert registry.read_metric("registry_slow_clients_disconnected_total") > disconnected
    wait_for(lambda: "x-registry-stale" not in reader.call("GET", path).headers)


def test_small_response_beside_slow_readers_is_sent(registry: Registry, team: Caller, reader: Caller) -> None:
    team.register("small")
    path = f"/registry/services/{NAME}"
    with slow_readers(reader, [f"{path}?tag={tag}" for tag in TAGS]) as slow:
        assert slow[0].read_status() == 200
        for _ in range(100):
            assert reader.call("GET", "/registry/services/small").status == 200


def test_slow_streams_far_behind_are_bounded_in_memory(registry: Registry, team: Caller) -> None:
    """Each would hold a separate page of the log, of 12 MB. A client that reads gets all changes."""
    start = team.register("wide")
    fields = {
        "metadata": {f"key-{number}": "x" * 490 for number in range(16)},
        "tags": [f"{number:0255}" for number in range(64)],
    }
    repeat_newest_change(registry, 1_500, **fields)
    registry.kill_web()  # the new process buffers the newest 16 MB
    watcher = registry.caller("registry-readers", subject="watcher")
    before = reset_peak(registry)
    headers = "Accept: text/event-stream\r\n"
    paths = [f"/registry/watch?index={start}"] * READERS
    with slow_readers(watcher, paths, headers) as slow, liveness_probes(registry):
        assert slow[0].read_status() == 200
        wait_for(lambda: registry.read_metric("registry_slow_clients_disconnected_total") > 0)
        changes = follow_changes(registry.ports[0], token("registry-readers"), "service=wide", start)
        ids = [int(change["index"].partition("-")[2]) for change in itertools.islice(changes, 1_500)]
        assert ids == sorted(set(ids))
    grown = read_peak_bytes(registry) - before
    print(f"{READERS} streams far behind: +{grown / 1e6:.0f} MB")
    # Beside the bound: pages that are not counted yet, each as text and as bytes, and what is about to be sent.
    assert grown < MAX_IN_FLIGHT_BYTES + 8 * PAGE_BYTES + READERS * BUFFERED_BYTES


def test_process_that_is_terminated_disconnects_readers_that_read_nothing(registry: Registry, reader: Caller) -> None:
    path = f"/registry/services/{NAME}"
    with slow_readers(reader, [f"{path}?tag={tag}" for tag in TAGS[:5]]) as slow:
        assert [each.read_status() for each in slow] == [200] * 5
        registry.web[0].send_signal(signal.SIGTERM)
        registry.web[0].wait(timeout=60)
    registry.restart_web()
