"""uvicorn in a thread of the test, as production runs it: with connections of the class that it uses."""

import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from asgiref.typing import ASGI3Application

from tests.waiting import wait_for

# So small that the kernel holds next to nothing between the server and a client that does not read.
SOCKET_BYTES = 4096
# So small that the kernel soon stops a client whose data the server does not read.
RECEIVED_BYTES = 64 * 1024

# Status, headers by their name in lower case, and body.
Reply = tuple[int, dict[str, str], bytes]


@contextmanager
def run_server(application: ASGI3Application, **options: Any) -> Iterator[tuple[uvicorn.Server, int]]:
    """Serve an ASGI application on a loopback port, and yield uvicorn's server and the port."""
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVED_BYTES)
        listening.bind(("127.0.0.1", 0))
        defaults: dict[str, Any] = {
            "http": "service_registry.asgi.server.connection:Connection",
            "lifespan": "off",
            "log_level": "critical",
            # Another test may compare the loggers' configuration.
            "log_config": None,
            "timeout_graceful_shutdown": 1,
        }
        server = uvicorn.Server(uvicorn.Config(application, **defaults | options))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        wait_for(lambda: server.started)
        try:
            yield server, int(listening.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def serve(application: ASGI3Application) -> Iterator[int]:
    """Serve an ASGI application on a loopback port, and yield the port."""
    with run_server(application) as (_server, port):
        yield port


def connect(port: int, request: bytes = b"") -> socket.socket:
    """Connect with small buffers, and send the bytes of a request."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, RECEIVED_BYTES)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BYTES)
    client.settimeout(60)
    client.connect(("127.0.0.1", port))
    client.sendall(request)
    return client


def get_requests(*paths: str) -> bytes:
    """Return pipelined GET requests for paths."""
    return b"".join(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() for path in paths)


def read_reply(connection: socket.socket) -> Reply:
    response = http.client.HTTPResponse(connection)
    response.begin()
    return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()


def send(port: int, request: bytes) -> Reply:
    """Send a request on a new connection, and return its response."""
    with connect(port, request) as connection:
        return read_reply(connection)
