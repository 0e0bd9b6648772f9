"""The parts of uvicorn that `asgi.server` uses: an upgrade that changes them fails here."""

import asyncio
from typing import Any

import pytest
import uvicorn
from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, Scope
from uvicorn.server import ServerState

from service_registry.asgi import transport
from service_registry.asgi.server.connection import Connection
from tests.asgi.connections import GET, Echo, Handler, ask, is_closed, receive_response, start, write
from tests.asgi.uvicorn_server import connect, run_server
from tests.waiting import wait_for

OURS = "service_registry.asgi.server.connection:Connection"


class Recorder(Connection):
    """A connection that keeps what uvicorn has made it with."""

    __slots__ = ()
    made_with: list[dict[str, Any]] = []

    def __init__(self, **arguments: Any) -> None:
        Recorder.made_with.append(arguments)
        super().__init__(**arguments)


class Application:
    """Keeps the messages of the lifespan, and the state of requests."""

    def __init__(self) -> None:
        self.has_limits: bool | None = None
        self.states: list[Any] = []

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] == "http":
            self.states.append(scope["state"])
            await start(send, (b"content-length", b"2"))
            await write(send, b"ok")
            return
        assert scope["type"] == "lifespan"
        scope["state"]["kept"] = 1
        assert (await receive())["type"] == "lifespan.startup"
        self.has_limits = transport.has_limits(receive)
        await send({"type": "lifespan.startup.complete"})
        assert (await receive())["type"] == "lifespan.shutdown"
        await send({"type": "lifespan.shutdown.complete"})


def test_connection_is_made_with_config_state_and_the_lifespans_state() -> None:
    application = Application()
    Recorder.made_with.clear()
    with run_server(application, http=Recorder, lifespan="on") as (server, port):
        assert ask(port, GET + b"\r\n")[2] == b"ok"
    (made_with,) = Recorder.made_with
    assert made_with.keys() == {"config", "server_state", "app_state", "_loop"}
    assert made_with["config"] is server.config
    assert made_with["server_state"] is server.server_state
    assert (made_with["app_state"], application.states) == ({"kept": 1}, [{"kept": 1}])


def test_state_of_the_server_has_what_connections_use() -> None:
    state = ServerState()
    assert vars(state) == {"total_requests": 0, "connections": set(), "tasks": set(), "default_headers": []}
    assert hash(state) == hash(state) != hash(ServerState())  # a key of the tables


def test_configuration_has_what_connections_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORWARDED_ALLOW_IPS", raising=False)
    application = Echo()
    config = uvicorn.Config(application, http=OURS, root_path="/root", proxy_headers=False, interface="asgi3")
    config.load()
    assert config.loaded_app is application
    assert issubclass(config.http_protocol_class, Connection)
    assert (config.root_path, config.forwarded_allow_ips) == ("/root", "127.0.0.1,::1")
    assert uvicorn.Config(application, forwarded_allow_ips=["a"]).forwarded_allow_ips == ["a"]


@pytest.mark.parametrize(("http", "expected"), [(OURS, True), ("httptools", False), ("h11", False), ("auto", False)])
def test_lifespan_shows_whether_connections_have_limits(http: str, expected: bool) -> None:
    application = Application()
    with run_server(application, http=http, lifespan="on"):
        assert application.has_limits is expected


def test_send_is_a_method_of_the_exchange_behind_the_proxys_middleware() -> None:
    """uvicorn puts its middleware for X-Forwarded-For between the connection and the application."""
    application = Echo()
    with run_server(application, proxy_headers=True) as (_server, port):
        assert ask(port, GET + b"\r\n")[0] == 200
    assert isinstance(application.exchanges[0].connection, Connection)


def test_default_headers_are_another_list_every_second() -> None:
    """A connection keeps the encoded headers until the list is another."""
    with run_server(Echo()) as (server, port):
        before = wait_for(lambda: server.server_state.default_headers)
        assert [name for name, _value in before] == [b"date", b"server"]
        with connect(port) as client:

            def ask_again() -> bytes:
                client.sendall(GET + b"\r\n")
                return receive_response(client)[1].partition(b"date: ")[2][:29]

            first = ask_again()
            wait_for(lambda: ask_again() != first)
        assert server.server_state.default_headers is not before


def test_server_knows_connections_and_tasks_and_waits_for_them() -> None:
    async def answer(receive: ASGIReceiveCallable, _send: ASGISendCallable) -> None:
        await receive()
        await receive()
        await asyncio.sleep(0.3)  # behind the end of the connection

    handler = Handler(answer)
    with run_server(handler, timeout_graceful_shutdown=None) as (server, port):
        state = server.server_state
        with connect(port), connect(port, GET + b"\r\n"):
            wait_for(lambda: handler.exchanges)
            assert len(state.connections) == 2
            assert len(state.tasks) == 1
        wait_for(lambda: not state.connections)
        assert not handler.ended
        assert len(state.tasks) == 1
    assert handler.ended == ["/"]


def test_server_shuts_connections_down_and_cancels_what_takes_too_long() -> None:
    cancelled = []

    async def answer(receive: ASGIReceiveCallable, _send: ASGISendCallable) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    handler = Handler(answer)
    with (
        run_server(handler, timeout_graceful_shutdown=1) as (server, port),
        connect(port) as idle,
        connect(port, GET + b"\r\n") as active,
    ):
        wait_for(lambda: handler.exchanges)
        server.should_exit = True
        assert is_closed(idle)
        assert is_closed(active)
    assert cancelled == [True]


def test_server_ends_after_its_number_of_requests() -> None:
    with run_server(Echo(), limit_max_requests=3) as (server, port), connect(port) as client:
        for _ in range(3):
            assert server.server_state.total_requests < 3
            client.sendall(GET + b"\r\n")
            assert receive_response(client)[0] == 200
        assert is_closed(client)
