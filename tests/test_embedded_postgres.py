"""The private PostgreSQL: what it keeps, and whom it takes for its predecessor."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from registry_project.devstack.exceptions import EmbeddedError
from registry_project.devstack.postgres import Server

# Started by somebody who is then killed.
ORPHANED = """
import os, signal, sys
from pathlib import Path
from registry_project.devstack.postgres import Server
server = Server(Path(sys.argv[1]), durable=False)
server.start()
print(server.postmaster_pid, flush=True)
os.kill(server.postmaster_pid, signal.SIGSTOP)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("postgres")


@pytest.fixture
def server(directory: Path) -> Iterator[Server]:
    """A server that is not running, on a cluster that is kept from test to test."""
    server = Server(directory, durable=False)
    yield server
    server.stop()


def ask(server: Server, query: str) -> tuple[str, ...]:
    with psycopg.connect(server.url) as connection:
        return connection.execute(query.encode()).fetchone() or ()


def test_it_is_a_database_as_the_registry_wants_one(server: Server, directory: Path) -> None:
    server.start()
    settings = ("server_encoding", "timezone", "synchronous_commit", "fsync", "listen_addresses")
    asked = ", ".join(f"current_setting('{name}')" for name in settings)
    assert ask(server, f"SELECT {asked}") == ("UTF8", "UTC", "on", "off", "127.0.0.1")
    assert (directory / "password").stat().st_mode & 0o777 == 0o600


def test_nobody_comes_in_without_the_password(server: Server) -> None:
    server.start()
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(server.url.replace(":" + server.password(), ":wrong"))


def test_it_starts_again_on_its_port_after_kill_9(server: Server) -> None:
    server.start()
    url, pid = server.url, server.postmaster_pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    server.start()
    assert (server.url, server.alive()) == (url, True)
    assert ask(server, "SELECT current_database()") == ("registry",)


def test_an_orphan_is_ended_before_the_next_start(server: Server, directory: Path) -> None:
    command = [sys.executable, "-c", ORPHANED, str(directory)]
    orphan = int(subprocess.run(command, stdout=subprocess.PIPE, check=False).stdout)
    os.kill(orphan, signal.SIGCONT)
    server.start()
    assert server.postmaster_pid != orphan
    assert ask(server, "SELECT current_database()") == ("registry",)


def test_a_lock_that_names_a_stranger_is_dropped_and_the_stranger_lives(server: Server, directory: Path) -> None:
    server.start()
    server.stop()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        (directory / "cluster" / "postmaster.pid").write_text(f"{stranger.pid}\n")
        server.start()
        assert stranger.poll() is None
        stranger.kill()
    assert server.alive()


def test_a_cluster_of_another_version_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "cluster").mkdir()
    (tmp_path / "cluster" / "PG_VERSION").write_text("9\n")
    with pytest.raises(EmbeddedError, match="made by PostgreSQL 9"):
        Server(tmp_path).start()
