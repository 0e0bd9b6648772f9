"""Removing most of a large fleet while others beat."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.client import registration
from tests.scale.conftest import INSTANCES_A_SERVICE, OLD, SERVICES
from tests.scale.test_pages import percentile_99, resident_bytes
from tests.server.registry import ROOT, Registry

pytestmark = pytest.mark.scale

LEASES = 1000
BEATERS = 4
BASELINE_SECONDS = 10
DEADLOCKS = "SELECT sum(deadlocks)::int FROM pg_stat_database"


class Beating:
    """1,000 leases that beat one by one, over and over, each with a pause as real instances have."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.seconds: list[float] = []
        self.statuses: set[int] = set()
        self.stopped = threading.Event()
        self.threads = [threading.Thread(target=self.beat, args=(place,)) for place in range(BEATERS)]

    def __enter__(self) -> "Beating":
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

    def beat(self, place: int) -> None:
        caller = self.registry.caller("registry-services", "team-beating")
        number = place
        while not self.stopped.wait(0.02):
            begun = time.perf_counter()
            key = {"service_name": "beating", "instance_id": f"b-{number % LEASES}"}
            self.statuses.add(caller.call("POST", "/registry/heartbeat", key).status)
            self.seconds.append(time.perf_counter() - begun)
            number += BEATERS

    def taken(self) -> list[float]:
        """The seconds of the beats since the last call."""
        seconds, self.seconds = self.seconds, []
        return seconds


def test_removing_40_000_of_50_000_while_1_000_leases_beat(fleet: Registry) -> None:
    with Beating(fleet) as beating:
        time.sleep(1)
        beating.taken()
        time.sleep(BASELINE_SECONDS)
        baseline = beating.taken()
        command = [sys.executable, "manage.py", "remove_instances", "--zone=old", "--reason=replaced", "--yes"]
        removal = subprocess.Popen(command, env=fleet.environment, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        resident: list[int] = []
        while removal.poll() is None:
            if Path(f"/proc/{removal.pid}/status").read_text().count("VmRSS"):
                resident.append(resident_bytes(removal.pid))
            time.sleep(0.2)
        output = removal.communicate()[0]
        during = beating.taken()
    kept = fleet.sql("SELECT count(*) FROM service_registry_instance")[0][0]
    half = len(resident) // 2
    ratio = percentile_99(during) / percentile_99(baseline)
    print(
        f"{SERVICES * OLD} removed; heartbeats p99 {percentile_99(during) * 1000:.0f} ms during ({len(during)} beats), "
        f"{percentile_99(baseline) * 1000:.0f} ms before ({len(baseline)}), ratio {ratio:.1f}; the command held "
        f"{resident[half] / 2**20:.0f} MiB half-way and {resident[-2] / 2**20:.0f} MiB at its end"
    )
    assert removal.returncode == 0, output
    assert kept == SERVICES * (INSTANCES_A_SERVICE - OLD) + LEASES
    assert beating.statuses == {200}
    assert fleet.sql(DEADLOCKS)[0][0] == 0
    assert resident[-2] - resident[half] < 20 * 2**20
    assert ratio < 3
