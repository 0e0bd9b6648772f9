"""Mistakes that are made on purpose are found; and a list has all changes up to its index."""

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
from tests.watch_consistency.run import ConsistencyRun, end_feeds

pytestmark = [pytest.mark.watch_consistency, pytest.mark.timeout(540)]
# At least this many lists are read, and more until they have more indexes than this.
LISTS = 100
INDEXES = 20
LOGGED = "SELECT id, (instance->>'port')::int FROM service_registry_change WHERE service_name = 'alone'"


class Mutated(Registry):
    """Its web processes have a fault, which is named in the environment."""

    def start_web(self, port: int) -> subprocess.Popen[bytes]:
        return self.start("-m", "tests.watch_consistency.faulty_server", self.environment["MUTANT"], str(port))


def small_storm(registry: Registry, directory: Path, name: str, writers: int = 4, **more: Any) -> Findings:
    """Enough to be caught in, and soon over."""
    storm = ConsistencyRun(
        registry, directory, singles=800, arrays=2_400, writers=writers, watchers=4, patience_seconds=10, **more
    )
    findings = storm.run()
    print(f"\n{name}: {findings}")
    return findings


def test_ids_without_the_lock_are_found(tmp_path: Path) -> None:
    with Registry(tmp_path, web_processes=2) as registry:
        findings = small_storm(registry, tmp_path, "ids without the lock", 8, mutant="ids_without_the_lock")
    assert findings.missed > 0


@pytest.mark.parametrize(
    ("mutant", "fault"), [("skip_after_reconnecting", "missed"), ("duplicates_after_resume", "repeated")]
)
def test_a_faulty_process_is_found(tmp_path: Path, mutant: str, fault: str) -> None:
    with Mutated(tmp_path, web_processes=2, variables={"MUTANT": mutant}) as registry:
        findings = small_storm(registry, tmp_path, mutant, disturb=end_feeds)
    assert getattr(findings, fault) > 0


def lists_that_lack_a_change(registry: Registry) -> tuple[int, int]:
    """Read lists while one instance changes without a pause.

    Return how many of them lack a change up to their index, and how many indexes they had.
    """
    writer, reader = (registry.caller("registry-services", "team") for _ in range(2))
    done = threading.Event()

    def write() -> None:
        for port in itertools.count(1):
            writer.call("POST", "/registry/register", registration("alone", port=port))
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


def test_a_list_has_all_changes_up_to_its_index(registry: Registry) -> None:
    lacking, indexes = lists_that_lack_a_change(registry)
    print(f"\nindex before data: {indexes} indexes, {lacking} lists lack a change")
    assert (lacking, indexes > INDEXES) == (0, True)


def test_an_index_read_after_the_data_is_found(tmp_path: Path) -> None:
    with Mutated(tmp_path, variables={"MUTANT": "index_read_after_the_data"}) as registry:
        lacking, indexes = lists_that_lack_a_change(registry)
    print(f"\nindex read after the data: {indexes} indexes, {lacking} lists lack a change")
    assert lacking > 0
