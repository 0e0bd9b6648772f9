"""Eight writers with delays inside their transactions, sixteen watchers, and nothing missed, repeated or out of order.

`make watch-short` runs a tenth of it, and less of it with feeds and web processes killed; `make watch` runs all of it.
"""

import itertools
import os
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.client import registration
from tests.live.storm import Findings, Storm
from tests.wire.running import Running, wait_for

pytestmark = [pytest.mark.storm, pytest.mark.timeout(1800)]
SHARE = int(os.environ.get("WATCH_SHARE", "10"))
SINGLES, ARRAYS = 20_000 // SHARE, 200_000 // SHARE
# Enough to be caught in, and soon over.
MUTANT_SINGLES, MUTANT_ARRAYS = 800, 2_400


class Mutated(Running):
    """Its web processes have a fault, which is named in the environment."""

    def start_web(self, port: int) -> subprocess.Popen[bytes]:
        return self.start("-m", "tests.live.mutated", self.environment["MUTANT"], str(port))


def say(findings: Findings, name: str) -> None:
    print(f"{name}: {findings}")


@pytest.mark.parametrize(("troubled", "share"), [("", 1), ("feeds", 8), ("web", 8)])
def test_every_change_comes_once_and_in_order(tmp_path: Path, troubled: str, share: int) -> None:
    singles, arrays = SINGLES // share, ARRAYS // share
    with Running(tmp_path, web_processes=2) as registry:
        findings = Storm(registry, tmp_path, singles, arrays, troubled=troubled).run()
    say(findings, troubled or "calm")
    assert findings.faults == 0, findings
    assert findings.changes > singles + arrays
    assert findings.seen > findings.changes


def test_the_storm_finds_ids_without_the_lock(tmp_path: Path) -> None:
    with Running(tmp_path, web_processes=2) as registry:
        findings = small_storm(registry, tmp_path, mutant="ids_without_the_lock").run()
    say(findings, "ids_without_the_lock")
    assert findings.missed > 0


@pytest.mark.parametrize(
    ("mutant", "fault"), [("skip_after_reconnecting", "missed"), ("duplicates_after_resume", "repeated")]
)
def test_the_storm_finds_a_faulty_process(tmp_path: Path, mutant: str, fault: str) -> None:
    with Mutated(tmp_path, web_processes=2, variables={"MUTANT": mutant}) as registry:
        findings = small_storm(registry, tmp_path, troubled="feeds").run()
    say(findings, mutant)
    assert getattr(findings, fault) > 0


def small_storm(registry: Running, directory: Path, **more: Any) -> Storm:
    return Storm(registry, directory, MUTANT_SINGLES, MUTANT_ARRAYS, watchers=4, **more)


def lists_that_lack_a_change(registry: Running) -> tuple[int, int]:
    """Of 100 lists, read while one instance changes without a pause, those that lack a change which their index
    claims; and how many came with another index than the one before."""
    writer, reader = (registry.caller("registry-services", "team") for _ in range(2))
    done = threading.Event()

    def write() -> None:
        for port in itertools.count(1):
            writer.call("POST", "/registry/register", registration(port=port))
            if done.is_set():
                return

    thread = threading.Thread(target=write)
    thread.start()
    try:
        wait_for(lambda: reader.call("GET", "/registry/services").json["services"])
        pages = [reader.call("GET", "/registry/services").json for _ in range(100)]
    finally:
        done.set()
        thread.join()
    logged = "SELECT id, (instance->>'port')::int FROM service_registry_change WHERE instance IS NOT NULL"
    port_at = dict(registry.sql(logged))
    lists = [(int(page["index"].partition("-")[2]), page["services"][0]["instances"][0]["port"]) for page in pages]
    return sum(port < port_at[pk] for pk, port in lists), len({pk for pk, _port in lists})


def test_a_list_has_all_changes_up_to_its_index(tmp_path: Path) -> None:
    with Running(tmp_path) as registry:
        lacking, indexes = lists_that_lack_a_change(registry)
    assert (lacking, indexes > 20) == (0, True)


def test_an_index_read_after_the_data_is_found(tmp_path: Path) -> None:
    with Mutated(tmp_path, variables={"MUTANT": "index_read_after_the_data"}) as registry:
        lacking, _indexes = lists_that_lack_a_change(registry)
    assert lacking > 0
