"""Indexes across a failover that loses commits, and across a restore into another cluster."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from registry_project.devstack import binaries
from registry_project.devstack.postgres import Server, server_environment
from tests.client import registration, token
from tests.server.event_stream import BackgroundStream
from tests.server.registry import Caller, Registry
from tests.waiting import wait_for


class Standby:
    """An asynchronous replica of a server, by streaming."""

    def __init__(self, primary: Server, directory: Path) -> None:
        self.primary = primary
        self.server = Server(directory, durable=False)
        directory.mkdir()
        shutil.copy(primary.directory / "password", directory / "password")
        self.server.change_owner(directory)
        self.run("pg_basebackup", "--pgdata", str(self.server.cluster), "--write-recovery-conf", "--checkpoint=fast")
        self.server.start()

    def run(self, program: str, *arguments: str) -> None:
        command = [
            *self.server.account.prefix,
            str(binaries.find_programs(self.primary.version()) / program),
            *arguments,
        ]
        subprocess.run(
            [*command, "--dbname", self.primary.url],
            env=server_environment(),
            check=True,
            capture_output=True,
            timeout=120,
        )

    def has_all(self, registry: Registry) -> bool:
        """Whether it has replayed what the primary has written."""
        query = "SELECT pg_current_wal_lsn() = replay_lsn FROM pg_stat_replication"
        return registry.sql(query) == [(True,)]

    def take_over(self, registry: Registry) -> None:
        """The primary is dead; this one serves at its address with what it has received."""
        registry.postgres.stop()
        self.server.port = self.primary.port
        registry.postgres = self.server
        self.server.start()
        assert registry.sql("SELECT pg_promote(true, 30)") == [(True,)]


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry(tmp_path / "running") as running:
        yield running


@pytest.fixture(autouse=True)
def _directory(tmp_path: Path) -> None:
    (tmp_path / "running").mkdir()


@contextmanager
def listening(registry: Registry, index: str) -> Iterator[BackgroundStream]:
    bearer = token("registry-readers", subject="listening")
    opened = BackgroundStream(registry.ports[0], bearer, f"index={index}")
    try:
        yield opened
    finally:
        opened.close()


def watch(caller: Caller, index: str) -> int:
    return caller.call("GET", f"/registry/watch?index={index}&wait=0s").status


def test_watch_after_a_failover_resumes_only_from_an_index_that_survived(registry: Registry, tmp_path: Path) -> None:
    """The replica stops receiving; three more changes are committed and seen; then the primary dies."""
    team = registry.caller("registry-services", "team")
    team.register("web")
    standby = Standby(registry.postgres, tmp_path / "standby")
    try:
        survived = team.register("web", weight=1)
        wait_for(lambda: standby.has_all(registry))
        standby.server.stop()
        lost = [team.register("web", f"lost-{number}") for number in range(3)]
        with listening(registry, survived) as open_stream:
            wait_for(lambda: len(open_stream.changes) == 3)
            standby.take_over(registry)
            assert open_stream.ended.wait(30)
            assert open_stream.kinds[-1] == "resync"
        team = registry.caller("registry-services", "team")
        wait_for(lambda: watch(team, survived) == 200)
        assert [watch(team, index) for index in lost] == [410, 410, 410]
        with listening(registry, survived) as open_stream:
            for number in range(5):
                wait_for(partial(is_registered, team, f"new-{number}"))
            wait_for(lambda: len(open_stream.changes) == 5)
            assert [change["instance_id"] for change in open_stream.changes] == [f"new-{n}" for n in range(5)]
        # Also when new changes have the numbers of those that were lost.
        assert [watch(team, index) for index in lost] == [410, 410, 410]
        assert converged(team) == ["a", *(f"new-{number}" for number in range(5))]
    finally:
        standby.server.stop()


def is_registered(team: Caller, instance_id: str) -> bool:
    return team.call("POST", "/registry/register", registration("web", instance_id)).status == 201


def converged(caller: Caller) -> list[str]:
    """What discovery gives from memory, which must be what the tables hold."""
    path = "/registry/services/web?status=all"
    from_memory = caller.call("GET", path)
    by_django = caller.call("GET", path, None, **{"X-Twice": "1", "x-twice": "2"})
    assert from_memory.body == by_django.body
    return [instance["instance_id"] for instance in from_memory.json["instances"]]


def test_a_restore_into_a_new_cluster_is_told_by_the_indexes(registry: Registry, tmp_path: Path) -> None:
    """Dumped, then three changes more that the dump lacks; restored, and written to anew."""
    team = registry.caller("registry-services", "team")
    kept = team.register("web")
    dump = tmp_path / "dump.sql"
    programs = binaries.find_programs(registry.postgres.version())
    run([programs / "pg_dump", "--file", dump, "--dbname", registry.postgres.url])
    lost = [team.register("web", f"lost-{number}") for number in range(3)]
    with listening(registry, lost[-1]) as open_stream:
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
        assert open_stream.ended.wait(30)
        assert open_stream.kinds[-1] == "resync"
    team = registry.caller("registry-services", "team")  # the connection was idle for longer than it is kept
    wait_for(lambda: watch(team, kept) == 200)
    for number in range(4):
        wait_for(partial(is_registered, team, f"new-{number}"))
    assert [watch(team, index) for index in lost] == [410, 410, 410]
    polled = team.call("GET", f"/registry/watch?index={kept}").json
    assert [change["instance_id"] for change in polled["changes"]] == [f"new-{number}" for number in range(4)]
    assert polled["index"] == team.read_newest_index()
    assert converged(team) == ["a", *(f"new-{number}" for number in range(4))]


def run(command: list[object]) -> None:
    subprocess.run(list(map(str, command)), env=server_environment(), check=True, capture_output=True, timeout=120)
