"""Answers on their way to clients that are slow, over real connections to uvicorn."""

import asyncio
import http.client
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import Any

import pytest
import uvicorn
from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope

from service_registry.asgi import request as door
from service_registry.asgi.flow_control import ROOM_SECONDS, SLICE_BYTES, Answers, Outlet
from service_registry.exceptions import TooBusy
from tests.asgi.clients import nowhere
from tests.waiting import wait_for

LARGE = 4_000_000
WRITE_SECONDS = ROOM_SECONDS + 0.5


class Serving:
    """Answers a request with as many bytes as its path says; those of one path have one text."""

    def __init__(self, port: int, answers: Answers) -> None:
        self.port = port
        self.answers = answers
        self.texts: dict[str, bytes] = {}
        # What came of each: whether its client took it whole.
        self.came: list[bool] = []
        self.asked = 0
        self.loop: asyncio.AbstractEventLoop | None = None

    async def __call__(self, scope: HTTPScope, _receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        self.loop = asyncio.get_running_loop()
        request = door.Arrived(scope, b"", {})
        outlet = Outlet(send, self.answers)
        self.asked += 1
        size = int(scope["path"].split("/")[1])
        try:
            await self.answers.wait_for_room(size)
        except TooBusy:
            await door.answer(send, request, 503, {})
            return
        text = self.texts.setdefault(scope["path"], b"x" * size)
        self.came.append(await self.answers.give(outlet, request, text))

    def ask(self, *paths: str) -> socket.socket:
        """One after the other on one connection, without taking the answers."""
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(30)
        client.connect(("127.0.0.1", self.port))
        client.sendall(b"".join(f"GET {path} HTTP/1.1\r\nHost: here\r\n\r\n".encode() for path in paths))
        return client

    def hurry(self) -> None:
        assert self.loop
        self.loop.call_soon_threadsafe(self.answers.hurry)

    def status(self, path: str) -> int:
        """Of an answer that is taken whole."""
        with self.ask(path) as client:
            answer = http.client.HTTPResponse(client)
            answer.begin()
            answer.read()
            return answer.status


@pytest.fixture
def serving() -> Iterator[Serving]:
    """There is room while one large answer is under way, and none while two are."""
    with socket.socket() as listening:
        # What lies between the sockets is little, on both ends: else the kernel alone holds megabytes.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        listening.bind(("127.0.0.1", 0))
        application = Serving(listening.getsockname()[1], Answers(LARGE + 1, WRITE_SECONDS))
        options: dict[str, Any] = {"lifespan": "off", "log_level": "critical", "timeout_graceful_shutdown": 1}
        server = uvicorn.Server(uvicorn.Config(application, **options))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        wait_for(lambda: server.started)
        yield application
        server.should_exit = True
        thread.join()


def taken(client: socket.socket, pause_seconds: float = 0) -> int:
    """How many bytes come, headers included, until they end or break off."""
    size = 0
    try:
        while size < LARGE and (part := client.recv(SLICE_BYTES)):
            size += len(part)
            time.sleep(pause_seconds)
    except ConnectionResetError:
        pass
    return size


def test_an_answer_arrives_whole(serving: Serving) -> None:
    for size in (1, SLICE_BYTES - 1, SLICE_BYTES, SLICE_BYTES + 1, LARGE):
        with serving.ask(f"/{size}") as client:
            answer = http.client.HTTPResponse(client)
            answer.begin()
            assert answer.read() == b"x" * size
    wait_for(lambda: serving.came == [True] * 5)
    assert (serving.answers.held_bytes, len(serving.answers.under_way)) == (0, 0)


def test_who_takes_nothing_is_cut_off(serving: Serving) -> None:
    began = time.monotonic()
    with serving.ask(f"/{LARGE}") as client:
        wait_for(lambda: serving.came == [False])
        assert time.monotonic() - began >= WRITE_SECONDS
        assert taken(client) < LARGE
    assert serving.answers.held_bytes == 0


def test_who_leaves_the_end_in_the_web_servers_buffer_is_cut_off_too(serving: Serving) -> None:
    with serving.ask(f"/{2 * SLICE_BYTES}"):
        wait_for(lambda: serving.came == [False])


def test_who_takes_it_slowly_gets_it_whole(serving: Serving) -> None:
    """In more time than it may take nothing."""
    began = time.monotonic()
    with serving.ask(f"/{LARGE}") as client:
        assert taken(client, pause_seconds=0.005) >= LARGE
    assert time.monotonic() - began > WRITE_SECONDS
    wait_for(lambda: serving.came == [True])


def test_an_answer_is_not_cut_off_for_the_one_before(serving: Serving) -> None:
    """Both on one connection: the end of the first lies in the web server's buffer when the second begins, and that one
    is taken in more time than the first may take nothing."""
    with serving.ask(f"/{2 * SLICE_BYTES}", f"/{LARGE}/next") as client:
        size = 0
        while size < LARGE + 2 * SLICE_BYTES:
            part = client.recv(SLICE_BYTES)
            assert part, f"cut off after {size}"
            size += len(part)
            time.sleep(0.005)
    wait_for(lambda: serving.came == [True, True])


def test_those_who_hold_on_to_answers_make_room(serving: Serving) -> None:
    with serving.ask(f"/{LARGE}/a"), serving.ask(f"/{LARGE}/b"):
        wait_for(lambda: serving.answers.held_bytes == 2 * LARGE)
        assert serving.status(f"/{LARGE}/c") == 200
        assert False in serving.came


def test_room_is_made_by_those_who_take_nothing_and_not_by_those_who_are_slow(serving: Serving) -> None:
    with serving.ask(f"/{LARGE}/slow") as slow, ThreadPoolExecutor(1) as pool:
        slowly = pool.submit(taken, slow, 0.005)
        wait_for(lambda: len(serving.answers.under_way) == 1)
        with serving.ask(f"/{LARGE}/stalled"):
            wait_for(lambda: len(serving.answers.under_way) == 2)
            assert serving.status(f"/{LARGE}/c") == 200
        assert slowly.result(30) >= LARGE


def test_nobody_who_takes_his_makes_room(serving: Serving) -> None:
    """Others are told to come back, but for a small answer."""
    ended = threading.Event()

    def take(client: socket.socket) -> None:
        while not ended.wait(0.01):
            client.recv(SLICE_BYTES)

    with serving.ask(f"/{10 * LARGE}") as client:
        thread = threading.Thread(target=take, args=(client,))
        thread.start()
        try:
            wait_for(lambda: len(serving.answers.under_way) == 1)
            assert serving.status(f"/{LARGE}") == 503
            assert serving.status(f"/{SLICE_BYTES}") == 200
        finally:
            ended.set()
            thread.join()
    wait_for(lambda: not serving.answers.under_way)
    assert serving.status(f"/{LARGE}") == 200


def test_when_the_process_ends_nobody_has_long(serving: Serving) -> None:
    """Who takes nothing of a large answer or a small one, or is answered only then."""
    serving.answers.write_seconds = 3600
    with (
        serving.ask(f"/{LARGE}/a"),
        serving.ask(f"/{LARGE}/b"),
        serving.ask(f"/{SLICE_BYTES}"),
        serving.ask(f"/{LARGE}/c"),
    ):
        wait_for(lambda: (len(serving.answers.writing), serving.asked) == (3, 4))
        serving.hurry()
        wait_for(lambda: serving.came == [False] * 4)


def test_one_text_for_many_counts_once(serving: Serving) -> None:
    with ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(closing(serving.ask(f"/{LARGE}/a")))
        wait_for(lambda: len(serving.answers.under_way) == 10)
        assert serving.answers.held_bytes == LARGE
    wait_for(lambda: not serving.answers.under_way)
    assert serving.answers.held_bytes == 0


def test_room_is_demanded_where_nobody_can_wait(serving: Serving) -> None:
    with serving.ask(f"/{LARGE}/a"), serving.ask(f"/{LARGE}/b"):
        wait_for(lambda: len(serving.answers.under_way) == 2)
        serving.answers.demand_room(SLICE_BYTES)
        with pytest.raises(TooBusy):
            serving.answers.demand_room(SLICE_BYTES + 1)


def test_a_page_counts_until_the_next_or_the_end() -> None:
    answers = Answers(LARGE)
    one, other, last = (Outlet(nowhere, answers) for _ in range(3))
    assert answers.admits(one, LARGE - 1)
    assert answers.admits(other, LARGE)
    assert not answers.admits(last, LARGE)
    assert answers.held_bytes == 2 * LARGE - 1
    assert answers.admits(other, 7)
    assert answers.held_bytes == LARGE + 6
    answers.leave(one)
    assert answers.admits(last, LARGE)
    for outlet in (one, other, last):
        answers.leave(outlet)
    assert (answers.held_bytes, len(answers.under_way)) == (0, 0)
