"""Bulk removal of most of a large fleet beside heartbeats."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.client import registration
from tests.scale.conftest import INSTANCES_PER_SERVICE, OLD, SERVICES
from tests.scale.test_pages import percentile_99
from tests.server.memory import read_resident_bytes
from tests.server.registry import ROOT, Registry

pytestmark = pytest.mark.scale

LEASES = 1000
HEARTBEAT_THREADS = 4
BASELINE_SECONDS = 10
DEADLOCKS = "SELECT sum(deadlocks)::int FROM pg_stat_database"


class HeartbeatLoad:
    """Threads that renew 1,000 leases one after another, with pauses as real instances have."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.seconds: list[float] = []
        self.statuses: set[int] = set()
        self.stopped = threading.Event()
        self.threads = [threading.Thread(target=self.renew_leases, args=(place,)) for place in range(HEARTBEAT_THREADS)]

    def __enter__(self) -> "HeartbeatLoad":
        team = self.registry.caller("registry-services", "team-beating")
        items = [registration("beating", f"b-{number}", ttl_seconds=3600) for number in range(LEASES)]
        team.call("POST", "/registry/register", items)
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stopped.set()
        for thread in self.threads:
            thread.join()

    def renew_leases(self, place: int) -> None:
        caller = self.registry.caller("registry-services", "team-beating")
        number = place
        while not self.stopped.wait(0.02):
            begun = time.perf_counter()
            key = {"service_name": "beating", "instance_id": f"b-{number % LEASES}"}
            self.statuses.add(caller.call("POST", "/registry/heartbeat", key).status)
            self.seconds.append(time.perf_counter() - begun)
            number += HEARTBEAT_THREADS

    def take_latencies(self) -> list[float]:
        """Return the seconds of each heartbeat since the last call."""
        seconds, self.seconds = self.seconds, []
        return seconds


def test_bulk_removal_beside_heartbeats_slows_them_little(fleet: Registry) -> None:
    with HeartbeatLoad(fleet) as load:
        time.sleep(1)
        load.take_latencies()
        time.sleep(BASELINE_SECONDS)
        baseline = load.take_latencies()
        command = [sys.executable, "manage.py", "remove_instances", "--zone=old", "--reason=replaced", "--yes"]
        removal = subprocess.Popen(command, env=fleet.environment, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        resident: list[int] = []
        while removal.poll() is None:
            if Path(f"/proc/{removal.pid}/status").read_text().count("VmRSS"):
                resident.append(read_resident_bytes(removal.pid))
            time.sleep(0.2)
        output = removal.communicate()[0]
        during = load.take_latencies()
    kept = fleet.sql("SELECT count(*) FROM service_registry_instance")[0][0]
    half = len(resident) // 2
    ratio = percentile_99(during) / percentile_99(baseline)
    print(
        f"{SERVICES * OLD} removed; heartbeats p99 {percentile_99(during) * 1000:.0f} ms during ({len(during)}), "
        f"{percentile_99(baseline) * 1000:.0f} ms before ({len(baseline)}), ratio {ratio:.1f}; the command held "
        f"{resident[half] / 2**20:.0f} MiB half-way and {resident[-2] / 2**20:.0f} MiB at its end"
    )
    assert removal.returncode == 0, output
    assert kept == SERVICES * (INSTANCES_PER_SERVICE - OLD) + LEASES
    assert load.statuses == {200}
    assert fleet.sql(DEADLOCKS)[0][0] == 0
    assert resident[-2] - resident[half] < 20 * 2**20
    assert ratio < 3
