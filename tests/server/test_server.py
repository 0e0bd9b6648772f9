"""Requests as they arrive at the web server: bodies, headers, paths, and responses without a database."""

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from registry_project.devstack.processes import free_port
from tests.client import registration
from tests.server.registry import Caller, Registry
from tests.waiting import wait_for


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("server")) as running:
        yield running


def make_head(team: Caller, *headers: str) -> str:
    lines = ["POST /registry/register HTTP/1.1", "Host: localhost", "Content-Type: application/json", *headers]
    return "\n".join([*lines, f"Authorization: {team.headers['Authorization']}", ""])


def test_request_with_expect_100_continue_gets_it(registry: Registry, team: Caller) -> None:
    content = json.dumps(registration(instance_id="expect")).encode()
    head = make_head(team, f"Content-Length: {len(content)}", "Expect: 100-continue")
    with socket.create_connection(("127.0.0.1", registry.ports[0]), timeout=60) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode() + b"\r\n")
        assert b" 100 " in connection.recv(1000)
        connection.sendall(content)
        assert b" 201 " in connection.recv(65536)


def test_bodies_that_never_arrive_do_not_delay_other_requests(registry: Registry, team: Caller) -> None:
    head = make_head(team, "Content-Length: 100").replace("\n", "\r\n").encode() + b"\r\n{"
    with ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(socket.create_connection(("127.0.0.1", registry.ports[0]), 60)).sendall(head)
        assert team.call("POST", "/registry/register", registration(instance_id="quick")).status == 201


def test_body_with_two_lengths_is_refused(registry: Registry, team: Caller) -> None:
    """Request smuggling: a proxy that reads by the other length would take the rest for another caller's request."""
    head = make_head(team, "Transfer-Encoding: chunked", "Content-Length: 5").replace("\n", "\r\n").encode()
    with socket.create_connection(("127.0.0.1", registry.ports[0]), timeout=60) as connection:
        connection.sendall(head + b"\r\n0\r\n\r\n")
        assert b" 400 " in connection.recv(65536)


@pytest.mark.parametrize("http", ["registry_project.asgi:Connection", "httptools", "h11"])
def test_process_without_limits_of_connections_logs_that_once(registry: Registry, http: str) -> None:
    output = registry.directory / "output"
    before, port = output.stat().st_size, free_port()
    registry.start("-m", "uvicorn", "registry_project.asgi:application", f"--http={http}", f"--port={port}")
    wait_for(lambda: registry.is_ready(port))
    with output.open() as log:
        log.seek(before)
        warnings = log.read().count("Connections are not limited: start uvicorn with --http")
    assert warnings == (0 if "Connection" in http else 1)


def test_connection_stays_open_after_refusals(team: Caller) -> None:
    for _ in range(3):
        assert team.call("POST", "/registry/register", {"port": 0}).status == 400
        assert team.call("POST", "/registry/register", "x" * 0x110000).status == 413
        assert team.call("GET", "/registry/nowhere").status == 404
        assert team.call("GET", "/registry/services").status == 200


def test_probes_need_no_token(registry: Registry) -> None:
    caller = registry.anonymous_caller()
    assert caller.call("GET", "/livez").status == 200
    ready = caller.call("GET", "/readyz")
    assert (ready.status, ready.json["status"]) == (200, "ok")
    assert set(ready.json["checks"]) == {"keys", "clock", "migrations", "replica", "database", "sweep", "checkers"}


def test_admin_without_a_database_shows_an_error_page(registry: Registry) -> None:
    """A signed-in user has a session, and reading that fails first."""
    session = "sessionid=" + "x" * 32
    assert registry.anonymous_caller().call("GET", "/admin/", Cookie=session).status == 302
    registry.postgres.stop()
    try:
        reply = registry.anonymous_caller().call("GET", "/admin/", Cookie=session)
    finally:
        registry.postgres.start()
    assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert b"<p>The registry cannot reach its database" in reply.body
    wait_for(lambda: registry.anonymous_caller().call("GET", "/admin/", Cookie=session).status == 302)
