"""Tests of the fault tests' fleet: a fleet whose heartbeats fail must not pass, as its leases are protected."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.faults.fleet import Fleet, isolate, reconnect

TTL_SECONDS = 1


class Handler(BaseHTTPRequestHandler):
    server: "Registry"
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        items = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status, outcome = self.server.responses
        body = json.dumps({"results": [{"status": outcome} for _ in items]}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the standard library's name)
        pass


class Registry(ThreadingHTTPServer):
    """Responds to every request alike: `responses` has the status, and that of each instance."""

    daemon_threads = True
    responses = (200, 200)


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def fleet(registry: Registry) -> Iterator[Fleet]:
    fleet = Fleet([registry.server_port])
    fleet.add("web", 4, ttl_seconds=TTL_SECONDS, per_host=2)
    yield fleet
    fleet.stop()


def test_fleet_with_successful_heartbeats_passes(fleet: Fleet) -> None:
    time.sleep(2 * TTL_SECONDS)
    fleet.assert_heartbeats_succeed()


@pytest.mark.parametrize(
    ("responses", "expected"), [((500, 200), "STATUSES"), ((200, 403), "OUTCOMES"), ((503, 200), "not_renewed == ")]
)
def test_fleet_whose_heartbeats_fail_is_reported(
    registry: Registry, fleet: Fleet, responses: tuple[int, int], expected: str
) -> None:
    registry.responses = responses
    time.sleep(2 * TTL_SECONDS)
    with pytest.raises(AssertionError) as raised:
        fleet.assert_heartbeats_succeed()
    assert expected in str(raised.traceback[-1].statement)


def test_fleet_with_a_failed_host_is_reported(fleet: Fleet) -> None:
    fleet.hosts[0].instance_ids = None  # type: ignore[assignment] # its next heartbeat fails
    time.sleep(TTL_SECONDS)
    with pytest.raises(AssertionError, match="a host's task has ended: TypeError"):
        fleet.assert_heartbeats_succeed()


def test_isolated_host_needs_no_heartbeats(registry: Registry, fleet: Fleet) -> None:
    isolate(fleet.hosts)
    time.sleep(2 * TTL_SECONDS)
    fleet.assert_heartbeats_succeed()
    reconnect(fleet.hosts)
    fleet.assert_heartbeats_succeed()
    time.sleep(TTL_SECONDS)
    fleet.assert_heartbeats_succeed()
