"""Readers that take little or nothing of large answers from memory, and those beside them."""

import contextlib
import itertools
import re
import signal
import socket
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service_registry.asgi.flow_control import MAX_IN_FLIGHT_BYTES, SLICE_BYTES
from tests.client import registration, token
from tests.server.event_stream import EventStream
from tests.server.registry import Caller, Registry, Reply
from tests.waiting import wait_for

READERS = 50
NAME = "large"
TAGS = [f"tag-{number}" for number in range(READERS)]
ANSWER_BYTES = 5_000_000
PAGE_BYTES = 12_500_000
# What the web server holds of a connection, and the answer's headers.
BUFFERED_BYTES = 3 * SLICE_BYTES


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """With a service whose answer has 5 MB, and by each of fifty tags the same instances."""
    with Registry(tmp_path_factory.mktemp("slow")) as running:
        team = running.caller("registry-services", "team")
        metadata = {f"key-{number}": "x" * 480 for number in range(2)}
        for part in range(6):
            items = [
                registration(NAME, f"{part}-{number}", tags=TAGS, metadata=metadata, ttl_seconds=3600)
                for number in range(500)
            ]
            assert team.call("POST", "/registry/register", items).status == 200
        assert len(team.call("GET", f"/registry/services/{NAME}").body) > ANSWER_BYTES
        yield running


class Slow:
    """Asks, and takes nothing before `take`. What lies between the sockets is little."""

    def __init__(self, caller: Caller, path: str, headers: str = "") -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.settimeout(60)
        self.socket.connect(("127.0.0.1", caller.connection.port))
        head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}"
        self.socket.sendall(f"{head}Authorization: {caller.headers['Authorization']}\r\n\r\n".encode())

    def begin(self) -> int:
        """The status of the answer, once it begins."""
        return int(self.socket.recv(12).removeprefix(b"HTTP/1.1 "))

    def close(self) -> None:
        self.socket.close()


@contextlib.contextmanager
def slow_readers(caller: Caller, paths: list[str], headers: str = "") -> Iterator[list[Slow]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(contextlib.closing(Slow(caller, path, headers))) for path in paths]


class Probing:
    """Asks on a thread, again and again, whether the process lives."""

    def __init__(self, registry: Registry) -> None:
        self.caller = registry.anonymous_caller()
        self.seconds: list[float] = []
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.probe)

    def __enter__(self) -> "Probing":
        self.thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.ended.set()
        self.thread.join()

    def probe(self) -> None:
        while not self.ended.wait(0.005):
            began = time.monotonic()
            assert self.caller.call("GET", "/livez").status == 200
            self.seconds.append(time.monotonic() - began)

    def __str__(self) -> str:
        p50, worst = statistics.median(self.seconds) * 1000, max(self.seconds) * 1000
        return f"{len(self.seconds)} probes, p50 {p50:.1f} ms, worst {worst:.0f} ms"


def highest_bytes(registry: Registry) -> int:
    """The most memory that the web process ever had."""
    status = Path(f"/proc/{registry.web[0].pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found
    return int(found[1]) * 1024


def forget_highest(registry: Registry) -> None:
    """Count it anew from here."""
    Path(f"/proc/{registry.web[0].pid}/clear_refs").write_text("5")


def test_slow_readers_of_different_answers_take_no_more_than_is_set_aside(
    registry: Registry, team: Caller, reader: Caller
) -> None:
    """All wait for one change, and then take nothing of 5 MB each. Who asks beside them for as much is served."""
    path = f"/registry/services/{NAME}"
    index = reader.call("GET", path).json["index"]
    waiting = registry.read_metric('registry_subscribers{kind="read"}')
    cut = registry.read_metric("registry_slow_clients_disconnected_total")
    forget_highest(registry)
    before = highest_bytes(registry)
    with (
        slow_readers(reader, [f"{path}?index={index}&wait=5m&tag={tag}" for tag in TAGS]) as slow,
        Probing(registry) as probing,
    ):
        wait_for(lambda: registry.read_metric('registry_subscribers{kind="read"}') == waiting + READERS)
        team.register(NAME, "last")
        began = time.monotonic()
        answer = wait_for(lambda: served(reader, path))
        took = time.monotonic() - began
        assert len(answer.json["instances"]) == 3001
        statuses = Counter(each.begin() for each in slow)
    grown = highest_bytes(registry) - before
    print(
        f"{READERS} slow readers: +{grown / 1e6:.0f} MB, {dict(statuses)}; a quick one {took:.2f} s; /livez: {probing}"
    )
    assert set(statuses) <= {200, 503}
    # Without a bound it is all that they ask for. Beside what is under way, 32 MB of answers are kept for the next.
    assert grown < READERS * ANSWER_BYTES * 0.6
    assert registry.read_metric("registry_slow_clients_disconnected_total") > cut


@pytest.mark.parametrize("source", ["memory", "the database"])
def test_slow_readers_of_lists_take_no_more_either(registry: Registry, reader: Caller, source: str) -> None:
    """All ask at once, while there is room, and each for another page."""
    cut = registry.read_metric("registry_slow_clients_disconnected_total")
    forget_highest(registry)
    before = highest_bytes(registry)
    with registry.stopped_postgres() if source == "memory" else contextlib.nullcontext():
        path = f"/registry/services?name={NAME}"
        wait_for(lambda: ("x-registry-stale" in reader.call("GET", path).headers) == (source == "memory"))
        with slow_readers(reader, [f"{path}&tag={tag}" for tag in TAGS]) as slow, Probing(registry) as probing:
            statuses = Counter(each.begin() for each in slow)
            assert wait_for(lambda: served(reader, path)).json["services"]
    grown = highest_bytes(registry) - before
    print(f"{READERS} slow readers of lists from {source}: +{grown / 1e6:.0f} MB, {dict(statuses)}; /livez: {probing}")
    assert set(statuses) <= {200, 503}
    assert grown < READERS * ANSWER_BYTES * 0.6
    assert registry.read_metric("registry_slow_clients_disconnected_total") > cut
    wait_for(lambda: "x-registry-stale" not in reader.call("GET", path).headers)


def served(caller: Caller, path: str) -> Reply | None:
    """The answer; none while there is no room for it, which is said as the contract says it."""
    answer = caller.call("GET", path)
    if answer.status == 503:
        assert (answer.json["code"], answer.headers["retry-after"]) == ("unavailable", "1")
        return None
    assert answer.status == 200
    return answer


def test_a_small_answer_needs_no_room(registry: Registry, team: Caller, reader: Caller) -> None:
    team.register("small")
    path = f"/registry/services/{NAME}"
    with slow_readers(reader, [f"{path}?tag={tag}" for tag in TAGS]) as slow:
        assert slow[0].begin() == 200
        for _ in range(100):
            assert reader.call("GET", "/registry/services/small").status == 200


def test_slow_watchers_who_are_far_behind_take_no_more_either(registry: Registry, team: Caller) -> None:
    """Each would hold a page of the log of its own, of 12 MB. One who takes what he asks for gets all."""
    start = team.read_newest_index()
    large: dict[str, Any] = {
        "metadata": {f"key-{number}": "x" * 490 for number in range(16)},
        "tags": [f"{number:0255}" for number in range(64)],
        "ttl_seconds": 3600,
    }
    items = [registration("wide", f"i-{number}", **large) for number in range(25)]
    for weight in range(60):
        assert team.call("POST", "/registry/register", [item | {"weight": weight} for item in items]).status == 200
    registry.kill_web()  # the newest 16 MB are in memory then
    watcher = registry.caller("registry-readers", subject="watcher")
    forget_highest(registry)
    before = highest_bytes(registry)
    headers = "Accept: text/event-stream\r\n"
    with slow_readers(watcher, [f"/registry/watch?index={start}"] * READERS, headers), Probing(registry) as probing:
        time.sleep(5)
        began = time.monotonic()
        with EventStream(registry.ports[0], token("registry-readers"), f"service=wide&index={start}") as quick:
            ids = [int(change["index"].partition("-")[2]) for change in itertools.islice(quick.changes(), 1_501)]
        assert ids == sorted(set(ids))
        took = time.monotonic() - began
    grown = highest_bytes(registry) - before
    print(f"{READERS} watchers far behind: +{grown / 1e6:.0f} MB; a quick one {took:.2f} s; /livez: {probing}")
    # Beside the bound: pages that are not counted yet, each as text and as bytes, and what is about to be sent.
    assert grown < MAX_IN_FLIGHT_BYTES + 8 * PAGE_BYTES + READERS * BUFFERED_BYTES


def test_a_process_that_is_asked_to_end_lets_go_of_readers_who_take_nothing(registry: Registry, reader: Caller) -> None:
    path = f"/registry/services/{NAME}"
    with slow_readers(reader, [f"{path}?tag={tag}" for tag in TAGS[:5]]) as slow:
        assert [each.begin() for each in slow] == [200] * 5
        registry.web[0].send_signal(signal.SIGTERM)
        registry.web[0].wait(timeout=20)
    registry.web[0] = registry.start_web(registry.ports[0])
    wait_for(lambda: registry.is_ready(registry.ports[0]))
