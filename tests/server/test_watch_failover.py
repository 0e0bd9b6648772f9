"""Indexes after a failover that lost commits, and after a restore into another cluster."""

import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from registry_project.devstack import binaries
from registry_project.devstack.postgres import Server, server_environment
from tests.client import registration, token
from tests.server.event_stream import BackgroundStream
from tests.server.registry import Caller, Registry
from tests.server.standby import Standby
from tests.waiting import wait_for


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry(tmp_path / "running") as running:
        yield running


@pytest.fixture(autouse=True)
def _directory(tmp_path: Path) -> None:
    (tmp_path / "running").mkdir()


def open_watch(registry: Registry, index: str) -> BackgroundStream:
    return BackgroundStream(registry.ports[0], token("registry-readers", subject="watcher"), f"index={index}")


def poll(caller: Caller, index: str) -> int:
    return caller.call("GET", f"/registry/watch?index={index}&wait=0s").status


def test_watch_after_a_failover_resumes_only_from_an_index_that_survived(registry: Registry, tmp_path: Path) -> None:
    """The replica stops receiving, three more changes are committed and sent, and then the primary ends."""
    team = registry.caller("registry-services", "team")
    team.register("web")
    standby = Standby(registry.postgres, tmp_path / "standby")
    try:
        survived = team.register("web", weight=1)
        wait_for(lambda: standby.has_all(registry))
        standby.server.stop()
        lost = [team.register("web", f"lost-{number}") for number in range(3)]
        with open_watch(registry, survived) as open_stream:
            wait_for(lambda: len(open_stream.changes) == 3)
            standby.take_over(registry)
            assert open_stream.ended.wait(60)
            assert open_stream.kinds[-1] == "resync"
        team = registry.caller("registry-services", "team")
        wait_for(lambda: poll(team, survived) == 200)
        assert [poll(team, index) for index in lost] == [410, 410, 410]
        with open_watch(registry, survived) as open_stream:
            for number in range(5):
                wait_for(partial(is_registered, team, f"new-{number}"))
            wait_for(lambda: len(open_stream.changes) == 5)
            assert [change["instance_id"] for change in open_stream.changes] == [f"new-{n}" for n in range(5)]
        # Also when new changes have the ids of the lost ones.
        assert [poll(team, index) for index in lost] == [410, 410, 410]
        assert read_service(registry, team) == ["a", *(f"new-{number}" for number in range(5))]
    finally:
        standby.server.stop()


def is_registered(team: Caller, instance_id: str) -> bool:
    return team.call("POST", "/registry/register", registration("web", instance_id)).status == 201


def read_service(registry: Registry, caller: Caller) -> list[str]:
    """Return the instances that discovery gives from memory, which must be those of the tables."""
    path = "/registry/services/web?status=all"
    from_memory = caller.call("GET", path)
    by_wsgi = Caller(registry.start_wsgi(), caller.headers["Authorization"].removeprefix("Bearer "))
    assert from_memory.body == by_wsgi.call("GET", path).body
    by_wsgi.connection.close()
    return [instance["instance_id"] for instance in from_memory.json["instances"]]


def test_watch_after_a_restore_resumes_only_from_an_index_in_the_dump(registry: Registry, tmp_path: Path) -> None:
    """Three changes come after the dump. It is restored into a new cluster, which gets other changes."""
    team = registry.caller("registry-services", "team")
    kept = team.register("web")
    assert team.call("POST", "/registry/register", registration("printer", "p-1", lease="none")).status == 201
    kept = team.read_newest_index()
    dump = tmp_path / "dump.sql"
    programs = binaries.find_programs(registry.postgres.version())
    run([programs / "pg_dump", "--file", dump, "--dbname", registry.postgres.url])
    lost = [team.register("web", f"lost-{number}") for number in range(3)]
    with open_watch(registry, lost[-1]) as open_stream:
        wait_for(lambda: "sync" in open_stream.kinds)
        restored = Server(tmp_path / "restored", durable=False)
        restored.directory.mkdir()
        shutil.copy(registry.postgres.directory / "password", restored.directory / "password")
        restored.start()
        run([programs / "psql", "--quiet", "--set=ON_ERROR_STOP=1", "--file", dump, "--dbname", restored.url])
        restored.stop()
        registry.postgres.stop()
        restored.port = registry.postgres.port
        registry.postgres = restored
        restored.start()
        assert open_stream.ended.wait(60)
        assert open_stream.kinds[-1] == "resync"
    wait_for(lambda: poll(team, kept) == 200)
    for number in range(4):
        wait_for(partial(is_registered, team, f"new-{number}"))
    assert [poll(team, index) for index in lost] == [410, 410, 410]
    polled = team.call("GET", f"/registry/watch?index={kept}").json
    assert [change["instance_id"] for change in polled["changes"]] == [f"new-{number}" for number in range(4)]
    assert polled["index"] == team.read_newest_index()
    assert read_service(registry, team) == ["a", *(f"new-{number}" for number in range(4))]


def run(command: list[object]) -> None:
    subprocess.run(list(map(str, command)), env=server_environment(), check=True, capture_output=True, timeout=120)
