"""A streaming standby of a PostgreSQL server."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import psycopg

from registry_project.devstack import binaries
from registry_project.devstack.postgres import Server, server_environment
from tests.server.registry import Registry


class Standby:
    """An asynchronous streaming replica of a PostgreSQL server.

    Arguments:
        port: where it listens; a free port by default.
    """

    def __init__(self, primary: Server, directory: Path, port: int = 0) -> None:
        self.primary = primary
        # A standby refuses to start with fewer connections or prepared transactions than its primary has.
        self.server = Server(directory, durable=False, settings=primary.settings)
        self.server.port = port or self.server.port
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
        """Return whether all that the primary has written is replayed."""
        query = "SELECT pg_current_wal_lsn() = replay_lsn FROM pg_stat_replication"
        return registry.sql(query) == [(True,)]

    def take_over(self, registry: Registry) -> None:
        """Replace the dead primary at its address, with the commits that were received."""
        registry.postgres.stop()
        self.server.port = self.primary.port
        registry.postgres = self.server
        self.server.start()
        self.promote()

    def sql(self, query: str) -> list[Any]:
        with psycopg.connect(self.server.url, connect_timeout=5, autocommit=True) as connection:
            return connection.execute(query).fetchall()

    def promote(self) -> None:
        assert self.sql("SELECT pg_promote(true, 30)") == [(True,)]
