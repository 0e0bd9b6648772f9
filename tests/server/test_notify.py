"""Web processes that notify each other of changes, on connections without a pooler."""

import statistics
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.client import registration, token
from tests.server.event_stream import BackgroundStream
from tests.server.registry import Caller, Registry
from tests.waiting import wait_for

CHANGES = 50
# So long that a change which only a poll brings is late on any machine.
POLL_SECONDS = 10
SERVER = f"""
import sys
import uvicorn
from registry_project.asgi import application
from service_registry.replica import feed
feed.POLL_SECONDS = {POLL_SECONDS}
http = "registry_project.asgi:Connection"
uvicorn.run(application, port=int(sys.argv[1]), http=http, access_log=False, log_level="warning")
"""


class RegistryWithNotify(Registry):
    """Its web processes listen for notifications, and seldom poll the log."""

    def start_web(self, port: int) -> subprocess.Popen[bytes]:
        self.environment["DATABASE_DIRECT_URL"] = self.postgres.url
        return self.start("-c", SERVER, str(port))


def measure_delays(registry: Registry) -> list[float]:
    """Return the seconds from the response of one process to the event of the other one."""
    team = registry.caller("registry-services", "team")
    query = f"index={team.read_newest_index()}&service=web"
    delays = []
    with BackgroundStream(registry.ports[1], token("registry-readers"), query) as stream:
        for number in range(1, CHANGES + 1):
            team.call("POST", "/registry/register", registration(port=number, ttl_seconds=3600))
            answered_at = time.monotonic()
            while len(stream.changes) < number + 1:  # the first registration also created the service
                time.sleep(0.001)
            delays.append(time.monotonic() - answered_at)
    return delays


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with RegistryWithNotify(tmp_path_factory.mktemp("notify"), web_processes=2) as running:
        yield running


def test_change_of_another_process_arrives_by_notify_before_the_poll(registry: Registry) -> None:
    assert statistics.median(measure_delays(registry)) < POLL_SECONDS / 4


def test_lost_listening_connection_is_made_again(registry: Registry, team: Caller) -> None:
    registry.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE '%-feed'")
    wait_for(lambda: team.call("POST", "/registry/register", registration("again")).status in {200, 201})
    other = registry.caller("registry-readers", place=1)
    wait_for(lambda: other.call("GET", "/registry/services/again").status == 200)
