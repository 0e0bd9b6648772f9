"""PgBouncer in front of a PostgreSQL: it gives a connection of the server to a client for one transaction."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Self
from urllib.parse import SplitResult, urlsplit

import psycopg

from registry_project.devstack import processes

READY_SECONDS = 30
CONFIGURATION = """
[databases]
{name} = host=127.0.0.1 port={server.port} dbname={name} user={server.username} password={server.password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
"""
# Debian installs it where only root looks, and it refuses to run as root.
SEARCH_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin"
ACCOUNT = "nobody"


def find_program() -> str | None:
    return shutil.which("pgbouncer", path=SEARCH_PATH)


class PgBouncer:
    """A PgBouncer, started by `with`.

    Arguments:
        directory: for its configuration.
        server_url: of the PostgreSQL behind it.

    Attributes:
        url: the value for DATABASE_URL.
    """

    def __init__(self, program: str, directory: Path, server_url: str) -> None:
        self.program = program
        self.configuration = directory / "pgbouncer.ini"
        server: SplitResult = urlsplit(server_url)
        port = processes.free_port()
        self.url = server_url.replace(f":{server.port}/", f":{port}/")
        self.configuration.touch(0o600)
        self.configuration.write_text(CONFIGURATION.format(name=server.path[1:], server=server, port=port))

    def __enter__(self) -> Self:
        account: list[str] = []
        if os.geteuid() == 0:
            shutil.chown(self.configuration, ACCOUNT)
            account = ["-u", ACCOUNT]
        self.process = subprocess.Popen(
            [self.program, "-q", *account, self.configuration],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.wait_until_ready()
        return self

    def __exit__(self, *_error: object) -> None:
        processes.stop(self.process, signal.SIGINT, 10)

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while True:
            try:
                psycopg.connect(self.url, connect_timeout=5).close()
            except psycopg.OperationalError as error:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise SystemExit(f"PgBouncer did not start: {error}") from None
                time.sleep(0.1)
            else:
                return
