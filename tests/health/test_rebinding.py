"""A name that resolves to an allowed address first and to this machine next: no connection is made to this machine."""

import asyncio
import socket
import socketserver
import threading
from collections.abc import Iterator
from ipaddress import ip_network
from typing import Any, Literal

import pytest

from service_registry.choices import Health
from service_registry.health.network import NetworkRule
from service_registry.health.probes import probe
from service_registry.health.probes.probe import Target
from service_registry.health.result import Cause, Result

ALLOWED, FORBIDDEN = "10.255.255.1", "127.0.0.1"
RULE = NetworkRule([ip_network("10.0.0.0/8")])
NAME = "rebinds.example.test"


class NameServer(socketserver.UDPServer):
    """A DNS server (RFC 1035) whose answers to one name differ from query to query; the last one stays."""

    def __init__(self, *answers: list[str]) -> None:
        super().__init__(("127.0.0.1", 0), Query)
        self.answers = list(answers)
        self.queries = 0

    def resolve(self, name: str) -> list[str]:
        """Ask the server, as the resolver of the system does."""
        question = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0\0\1\0\1"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(b"\0\7\1\0\0\1\0\0\0\0\0\0" + question, self.server_address)
            answer = client.recv(512)
        # Each record has a pointer to the name, type, class, TTL, length and four bytes of address.
        records = answer[12 + len(question) :]
        return [socket.inet_ntoa(records[at + 12 : at + 16]) for at in range(0, len(records), 16)]


class Query(socketserver.BaseRequestHandler):
    server: NameServer

    def handle(self) -> None:
        query, reply = self.request
        server = self.server
        addresses = server.answers[min(server.queries, len(server.answers) - 1)]
        server.queries += 1
        records = [b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4" + socket.inet_aton(address) for address in addresses]
        head = query[:2] + b"\x81\x80\0\1" + len(records).to_bytes(2, "big") + b"\0\0\0\0"
        reply.sendto(head + query[12:] + b"".join(records), self.client_address)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server((FORBIDDEN, 0)) as server:
        server.setblocking(False)
        yield server


def check(
    monkeypatch: pytest.MonkeyPatch,
    listener: socket.socket,
    *answers: list[str],
    check_type: Literal["http", "https", "tcp", "grpc"] = "http",
) -> tuple[Result, int]:
    """Return the result of a check of the name, and the number of queries.

    The system's resolver reads /etc/resolv.conf, which only root may change: names go to the test's server instead.
    """
    system_resolver = socket.getaddrinfo
    port = listener.getsockname()[1]
    with NameServer(*answers) as server:

        def getaddrinfo(host: Any, *arguments: Any, **options: Any) -> Any:
            if host != NAME:
                return system_resolver(host, *arguments, **options)
            return [entry for each in server.resolve(NAME) for entry in system_resolver(each, *arguments, **options)]

        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        result = asyncio.run(probe(Target(check_type, NAME, port, 1), RULE))
        server.shutdown()
        return result, server.queries


def require_no_connection(listener: socket.socket) -> None:
    with pytest.raises(BlockingIOError):
        listener.accept()


@pytest.mark.parametrize("check_type", ["http", "https", "tcp", "grpc"])
def test_name_that_rebinds_leads_to_no_connection(
    monkeypatch: pytest.MonkeyPatch, listener: socket.socket, check_type: Literal["http", "https", "tcp", "grpc"]
) -> None:
    result, queries = check(monkeypatch, listener, [ALLOWED], [FORBIDDEN], check_type=check_type)
    assert (result.level, queries) == (Health.CRITICAL, 1)
    require_no_connection(listener)


@pytest.mark.parametrize("addresses", [[FORBIDDEN], [ALLOWED, FORBIDDEN], [FORBIDDEN, ALLOWED]])
def test_name_with_a_forbidden_address_leads_to_no_connection(
    monkeypatch: pytest.MonkeyPatch, listener: socket.socket, addresses: list[str]
) -> None:
    result, _ = check(monkeypatch, listener, addresses)
    assert result.cause is Cause.FORBIDDEN_ADDRESS
    require_no_connection(listener)


def test_listener_sees_a_connection_where_the_address_is_allowed(
    monkeypatch: pytest.MonkeyPatch, listener: socket.socket
) -> None:
    """Without this the other tests would also pass if no name led anywhere."""
    monkeypatch.setattr("tests.health.test_rebinding.RULE", NetworkRule([ip_network("127.0.0.0/8")]))
    result, _ = check(monkeypatch, listener, [FORBIDDEN], check_type="tcp")
    assert result.level is Health.PASSING
    listener.accept()[0].close()
