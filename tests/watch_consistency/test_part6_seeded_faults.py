"""Seeded faults are detected; and a list contains all changes up to its index."""

import itertools
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.client import registration
from tests.server.registry import Registry
from tests.waiting import wait_for
from tests.watch_consistency.findings import Findings
from tests.watch_consistency.run import ConsistencyRun, terminate_feeds

pytestmark = [pytest.mark.watch_consistency, pytest.mark.timeout(540)]
# At least this many lists are read, and more until they have more indexes than this.
LISTS = 100
INDEXES = 20
LOGGED = "SELECT id, (instance->>'port')::int FROM service_registry_change WHERE service_name = 'alone'"


class FaultyRegistry(Registry):
    """Its web processes have the fault that the environment names."""

    def start_web(self, port: int) -> subprocess.Popen[bytes]:
        return self.start("-m", "tests.watch_consistency.faulty_server", self.environment["FAULT"], str(port))


def run_small(
    registry: Registry, directory: Path, name: str, writers: int = 4, singles: int = 800, **more: Any
) -> Findings:
    """Run a few thousand changes: enough to detect a fault."""
    run = ConsistencyRun(
        registry, directory, singles=singles, arrays=2_400, writers=writers, watchers=4, finish_seconds=30, **more
    )
    findings = run.run()
    print(f"\n{name}: {findings}")
    return findings


def test_fault_of_ids_without_the_lock_is_detected(tmp_path: Path) -> None:
    with Registry(tmp_path, web_processes=2) as registry:
        # New instances of one owner are serialized by the lock of its quota: there must be many updates.
        findings = run_small(registry, tmp_path, "ids without the lock", 8, 8_000, fault="ids_without_the_lock")
    assert findings.missed > 0


@pytest.mark.parametrize(
    ("fault", "finding"), [("skip_after_reconnecting", "missed"), ("duplicates_after_resume", "repeated")]
)
def test_fault_of_a_web_process_is_detected(tmp_path: Path, fault: str, finding: str) -> None:
    with FaultyRegistry(tmp_path, web_processes=2, variables={"FAULT": fault}) as registry:
        findings = run_small(registry, tmp_path, fault, disturb=terminate_feeds)
    assert getattr(findings, finding) > 0


def count_lists_that_lack_a_change(registry: Registry) -> tuple[int, int]:
    """Read lists while one instance changes without a pause.

    Return how many of them lack a change up to their index, and how many indexes they had.
    """
    writer, reader = (registry.caller("registry-services", "team") for _ in range(2))
    done = threading.Event()

    def write() -> None:
        for port in itertools.count(1):
            writer.call("POST", "/registry/register", registration("alone", port=port, ttl_seconds=86400))
            if done.is_set():
                return

    thread = threading.Thread(target=write)
    thread.start()
    try:
        wait_for(lambda: reader.call("GET", "/registry/services?name=alone").json["services"])
        pages: list[Any] = []
        while len(pages) < LISTS or len({page["index"] for page in pages}) <= INDEXES:
            pages.append(reader.call("GET", "/registry/services?name=alone").json)
    finally:
        done.set()
        thread.join()
    port_at = dict(registry.sql(LOGGED))
    lists = [(int(page["index"].partition("-")[2]), page["services"][0]["instances"][0]["port"]) for page in pages]
    return sum(port < port_at[pk] for pk, port in lists), len({pk for pk, _port in lists})


def test_list_contains_all_changes_up_to_its_index(registry: Registry) -> None:
    lacking, indexes = count_lists_that_lack_a_change(registry)
    print(f"\nindex before data: {indexes} indexes, {lacking} lists lack a change")
    assert (lacking, indexes > INDEXES) == (0, True)


def test_fault_of_an_index_read_after_the_data_is_detected(tmp_path: Path) -> None:
    with FaultyRegistry(tmp_path, variables={"FAULT": "index_read_after_the_data"}) as registry:
        lacking, indexes = count_lists_that_lack_a_change(registry)
    print(f"\nindex read after the data: {indexes} indexes, {lacking} lists lack a change")
    assert lacking > 0
