"""The fleet of the fault suite says when it was not heard: else a registry that fails would pass as one that holds."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.faults.fleet import Fleet, cut_off, heal

TTL_SECONDS = 1


class Handler(BaseHTTPRequestHandler):
    server: "Registry"
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status, outcome = self.server.says
        answer = json.dumps({"results": [{"status": outcome} for _ in asked]}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the standard library's name)
        pass


class Registry(ThreadingHTTPServer):
    """Answers every call alike: `says` is the status, and that of each instance."""

    daemon_threads = True
    says = (200, 200)


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


def test_it_beats(fleet: Fleet) -> None:
    time.sleep(2 * TTL_SECONDS)
    fleet.assert_it_beats()


@pytest.mark.parametrize(
    ("says", "told"), [((500, 200), "ANSWERS"), ((200, 403), "OUTCOMES"), ((503, 200), "unheard == ")]
)
def test_it_says_when_its_beats_are_not_taken(
    registry: Registry, fleet: Fleet, says: tuple[int, int], told: str
) -> None:
    registry.says = says
    time.sleep(2 * TTL_SECONDS)
    with pytest.raises(AssertionError) as raised:
        fleet.assert_it_beats()
    assert told in str(raised.traceback[-1].statement)


def test_it_says_when_a_host_has_come_to_an_end(fleet: Fleet) -> None:
    fleet.hosts[0].instance_ids = None  # type: ignore[assignment] # what its next beat fails on
    time.sleep(TTL_SECONDS)
    with pytest.raises(AssertionError, match="a host's life has ended: TypeError"):
        fleet.assert_it_beats()


def test_whoever_is_cut_off_need_not_be_heard(registry: Registry, fleet: Fleet) -> None:
    cut_off(fleet.hosts)
    time.sleep(2 * TTL_SECONDS)
    fleet.assert_it_beats()
    heal(fleet.hosts)
    fleet.assert_it_beats()
    time.sleep(TTL_SECONDS)
    fleet.assert_it_beats()
