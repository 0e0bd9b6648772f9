"""The private PostgreSQL server: settings, restarts, orphaned predecessors."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from registry_project.devstack import DevstackError
from registry_project.devstack.postgres import Server

# Starts a server and freezes it, then kills itself.
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
    """Return a stopped server; its cluster is shared by the tests of this module."""
    server = Server(directory, durable=False)
    yield server
    server.stop()


def ask(server: Server, query: str) -> tuple[str, ...]:
    with psycopg.connect(server.url) as connection:
        return connection.execute(query.encode()).fetchone() or ()


def test_server_has_the_settings_that_the_registry_needs(server: Server, directory: Path) -> None:
    server.start()
    settings = ("server_encoding", "timezone", "synchronous_commit", "fsync", "listen_addresses")
    asked = ", ".join(f"current_setting('{name}')" for name in settings)
    assert ask(server, f"SELECT {asked}") == ("UTF8", "UTC", "on", "off", "127.0.0.1")
    assert (directory / "password").stat().st_mode & 0o777 == 0o600


def test_connection_with_a_wrong_password_is_refused(server: Server) -> None:
    server.start()
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(server.url.replace(":" + server.password(), ":wrong"))


def test_server_restarts_on_the_same_port_after_kill_9(server: Server) -> None:
    server.start()
    url, pid = server.url, server.postmaster_pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    server.start()
    assert (server.url, server.is_alive()) == (url, True)
    assert ask(server, "SELECT current_database()") == ("registry",)


def test_orphaned_server_is_stopped_before_the_next_start(server: Server, directory: Path) -> None:
    command = [sys.executable, "-c", ORPHANED, str(directory)]
    orphan = int(subprocess.run(command, stdout=subprocess.PIPE, check=False).stdout)
    os.kill(orphan, signal.SIGCONT)
    server.start()
    assert server.postmaster_pid != orphan
    assert ask(server, "SELECT current_database()") == ("registry",)


def test_lock_file_of_an_unrelated_process_is_removed_and_the_process_lives(server: Server, directory: Path) -> None:
    server.start()
    server.stop()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        (directory / "cluster" / "postmaster.pid").write_text(f"{stranger.pid}\n")
        server.start()
        assert stranger.poll() is None
        stranger.kill()
    assert server.is_alive()


def test_cluster_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cluster").mkdir()
    (tmp_path / "cluster" / "PG_VERSION").write_text("9\n")
    with pytest.raises(DevstackError, match="created by PostgreSQL 9"):
        Server(tmp_path).start()
