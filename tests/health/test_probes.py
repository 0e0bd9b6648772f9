"""Probes against real servers over TCP, HTTP, HTTPS and gRPC."""

import asyncio
import gzip
import socket
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import grpc
import pytest
from django.conf import LazySettings
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from service_registry.choices import Health
from service_registry.health.network import NetworkRule
from service_registry.health.probes import probe
from service_registry.health.probes.probe import Target
from service_registry.health.probes.tls import tls_context
from service_registry.health.result import OUTPUT_BYTES, Cause, Result
from tests.health.targets import Authority, Handler, answering, drip, hang, listen, status

LOOPBACK = NetworkRule([ip_network("127.0.0.0/8")])


def check(handler: Handler, **options: Any) -> tuple[Result, list[bytes]]:
    """Return the result of a check over HTTP, and the requests that the server got."""

    async def run() -> tuple[Result, list[bytes]]:
        async with listen(handler) as server:
            target = Target("http", "127.0.0.1", server.port, options.pop("timeout_seconds", 10), **options)
            return await probe(target, LOOPBACK), server.requests

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("code", "level", "cause"),
    [
        (200, Health.PASSING, Cause.OK),
        (204, Health.PASSING, Cause.OK),
        (299, Health.PASSING, Cause.OK),
        (301, Health.CRITICAL, Cause.UNEXPECTED_STATUS),
        (404, Health.CRITICAL, Cause.UNEXPECTED_STATUS),
        (429, Health.WARNING, Cause.TOO_MANY_REQUESTS),
        (500, Health.CRITICAL, Cause.UNEXPECTED_STATUS),
        (503, Health.CRITICAL, Cause.UNEXPECTED_STATUS),
    ],
)
def test_statuses(code: int, level: Health, cause: Cause) -> None:
    result, _ = check(status(code))
    assert (result.level, result.cause) == (level, cause)


def test_other_statuses_may_be_expected() -> None:
    assert check(status(404), expected=range(400, 500))[0].level is Health.PASSING
    assert check(status(200), expected=range(400, 500))[0].level is Health.CRITICAL


def test_request_is_one_get_of_the_path_with_the_headers() -> None:
    _, requests = check(status(200), path="/health?deep=1", headers={"X-Probe": "yes"})
    lines = requests[0].decode().split("\r\n")
    assert lines[0] == "GET /health?deep=1 HTTP/1.1"
    fields = {line.partition(": ")[0].lower(): line.partition(": ")[2] for line in lines[1:] if line}
    assert fields["x-probe"] == "yes"
    assert fields["accept-encoding"] == "identity"
    assert fields["connection"] == "close"
    assert not {"cookie", "authorization"} & fields.keys()


def test_redirect_is_not_followed() -> None:
    async def run() -> tuple[Result, int]:
        async with listen(status(200)) as other:
            moved = status(302, headers=f"Location: http://127.0.0.1:{other.port}/\r\n")
            async with listen(moved) as server:
                result = await probe(Target("http", "127.0.0.1", server.port, 10), LOOPBACK)
                return result, other.connections

    result, connections = asyncio.run(run())
    assert (result.level, result.cause, connections) == (Health.CRITICAL, Cause.UNEXPECTED_STATUS, 0)


def test_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.settimeout(0.1)
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "grpc_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.getsockname()[1]}")
        assert check(status(200))[0].level is Health.PASSING
        assert grpc_result(health_pb2.HealthCheckResponse.SERVING).level is Health.PASSING
        with pytest.raises(TimeoutError):
            proxy.accept()


def test_output_is_cut_and_has_no_control_characters() -> None:
    result, _ = check(status(500, b"\x1b[31m\x00red" + b"x" * 10_000_000))
    assert result.output.startswith("HTTP 500\n\ufffd[31m\ufffdred")
    assert len(result.output) <= OUTPUT_BYTES


def test_compressed_answer_is_not_unpacked() -> None:
    bomb = gzip.compress(b"\0" * 50_000_000)
    result, _ = check(status(200, bomb, "Content-Encoding: gzip\r\n"))
    assert result.level is Health.PASSING
    assert len(result.output) <= OUTPUT_BYTES


@pytest.mark.parametrize("handler", [hang, drip])
def test_target_that_does_not_finish_fails_after_the_timeout(handler: Handler) -> None:
    result, _ = check(handler, timeout_seconds=1)
    assert (result.level, result.cause) == (Health.CRITICAL, Cause.TIMEOUT)


@pytest.mark.parametrize(
    "answer", [b"", b"hello\r\n\r\n", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000]
)
def test_answer_that_is_no_http_fails(answer: bytes) -> None:
    result, _ = check(answering(answer))
    assert (result.level, result.cause) == (Health.CRITICAL, Cause.PROTOCOL)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def run_probe(target: Target, rule: NetworkRule = LOOPBACK) -> Result:
    return asyncio.run(probe(target, rule))


def test_tcp() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert run_probe(Target("tcp", "127.0.0.1", port, 10)).level is Health.PASSING
        assert run_probe(Target("tcp", "localhost", port, 10), BOTH_LOOPBACKS).level is Health.PASSING
    result = run_probe(Target("tcp", "127.0.0.1", free_port(), 10))
    assert (result.level, result.cause) == (Health.CRITICAL, Cause.REFUSED)


BOTH_LOOPBACKS = NetworkRule([ip_network("127.0.0.0/8"), ip_network("::1/128")])


def test_name_without_an_address_fails() -> None:
    result = run_probe(Target("tcp", "no-such-host.invalid", 80, 30))
    assert (result.level, result.cause) == (Health.CRITICAL, Cause.NAME)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "::ffff:127.0.0.1", "::1", "localhost", "127.1", "2130706433", "64:ff9b::7f00:1", "0.0.0.0"]
)
@pytest.mark.parametrize("kind", ["tcp", "http", "grpc"])
def test_forbidden_address_gets_no_connection(host: str, kind: Any) -> None:
    with socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        listener.settimeout(0.05)
        everything = NetworkRule([ip_network("0.0.0.0/0"), ip_network("::/0")])
        result = run_probe(Target(kind, host, listener.getsockname()[1], 10), everything)
        assert (result.level, result.cause) == (Health.CRITICAL, Cause.FORBIDDEN_ADDRESS)
        with pytest.raises(TimeoutError):
            listener.accept()


@pytest.fixture
def authority(tmp_path: Path, settings: LazySettings) -> Iterator[Authority]:
    made = Authority(tmp_path)
    settings.REGISTRY_HEALTH_CA_FILE = str(made.file)
    tls_context.cache_clear()
    yield made
    tls_context.cache_clear()


def https_result(
    authority: Authority, certified: str, host: str = "127.0.0.1", code: int = 200, **options: Any
) -> Result:
    async def run() -> Result:
        async with listen(status(code), authority.server_context(certified)) as server:
            return await probe(Target("https", host, server.port, 10, **options), BOTH_LOOPBACKS)

    return asyncio.run(run())


def test_https_with_a_private_authority(authority: Authority) -> None:
    assert https_result(authority, "127.0.0.1").level is Health.PASSING
    assert https_result(authority, "localhost", "localhost").level is Health.PASSING
    assert https_result(authority, "127.0.0.1", code=429).level is Health.WARNING
    assert https_result(authority, "127.0.0.1", code=500).level is Health.CRITICAL


def test_certificate_of_another_name_or_authority_fails(authority: Authority, settings: LazySettings) -> None:
    result = https_result(authority, "elsewhere.example")
    assert (result.level, result.cause) == (Health.CRITICAL, Cause.TLS)
    assert https_result(authority, "elsewhere.example", tls_verify=False).level is Health.PASSING
    settings.REGISTRY_HEALTH_CA_FILE = ""
    tls_context.cache_clear()
    assert https_result(authority, "127.0.0.1").cause is Cause.TLS


def grpc_result(serving: Any, authority: Authority | None = None) -> Result:
    async def run() -> Result:
        server = grpc.aio.server()
        servicer = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        await servicer.set("", serving)
        if authority:
            credentials = grpc.ssl_server_credentials([authority.issue("127.0.0.1")])
            port = server.add_secure_port("127.0.0.1:0", credentials)
        else:
            port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            return await probe(Target("grpc", "127.0.0.1", port, 20, uses_tls=authority is not None), LOOPBACK)
        finally:
            await server.stop(None)

    return asyncio.run(run())


def test_grpc_health_service(authority: Authority) -> None:
    serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
    assert grpc_result(serving) == Result(Cause.OK, "SERVING")
    assert grpc_result(not_serving) == Result(Cause.NOT_SERVING, "NOT_SERVING")
    assert grpc_result(serving, authority).level is Health.PASSING


def test_grpc_target_that_is_away_or_speaks_http_fails() -> None:
    result = run_probe(Target("grpc", "127.0.0.1", free_port(), 10))
    assert (result.level, result.cause) == (Health.CRITICAL, Cause.UNREACHABLE)

    async def run() -> Result:
        async with listen(hang) as server:
            return await probe(Target("grpc", "127.0.0.1", server.port, 1), LOOPBACK)

    assert asyncio.run(run()).level is Health.CRITICAL
