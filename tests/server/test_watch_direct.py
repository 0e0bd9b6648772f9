"""Processes that tell each other of changes, where they reach the database past a pooler."""

import statistics
import subprocess
import time
from pathlib import Path

from tests.client import registration, token
from tests.server.event_stream import BackgroundStream
from tests.server.registry import Registry
from tests.waiting import wait_for

CHANGES = 100


class Direct(Registry):
    """Its web processes listen."""

    def start_web(self, port: int) -> subprocess.Popen[bytes]:
        self.environment["DATABASE_DIRECT_URL"] = self.postgres.url
        return super().start_web(port)


def median_delay(registry: Registry) -> float:
    """From the answer of one process to the arrival at a watcher of the other, in seconds."""
    team = registry.caller("registry-services", "team")
    listening = BackgroundStream(
        registry.ports[1], token("registry-readers"), f"index={team.read_newest_index()}&service=web"
    )
    delays = []
    try:
        for port in range(1, CHANGES + 1):
            team.call("POST", "/registry/register", registration(port=port))
            answered_at = time.monotonic()
            while len(listening.changes) < port + 1:  # the service was created first
                time.sleep(0.001)
            delays.append(time.monotonic() - answered_at)
    finally:
        listening.close()
    return statistics.median(delays)


def test_changes_of_another_process_come_sooner_by_notify(tmp_path: Path) -> None:
    for name in ("polling", "direct"):
        (tmp_path / name).mkdir()
    with Registry(tmp_path / "polling", web_processes=2) as registry:
        polled = median_delay(registry)
    with Direct(tmp_path / "direct", web_processes=2) as registry:
        told = median_delay(registry)
        # A lost listener is made anew, and the poll beneath it goes on.
        registry.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE '%-feed'")
        team = registry.caller("registry-services", "team")
        wait_for(lambda: team.call("POST", "/registry/register", registration("again")).status in {200, 201})
        other = registry.caller("registry-readers", place=1)
        wait_for(lambda: other.call("GET", "/registry/services/again").status == 200)
    print(f"median of {CHANGES}: {polled * 1000:.0f} ms by polling, {told * 1000:.0f} ms by NOTIFY")
    assert told < polled / 2
