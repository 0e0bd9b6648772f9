"""A registry of real processes: its own durable PostgreSQL, web processes, and a worker."""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import psycopg

from registry_project.devstack.postgres import Server
from registry_project.devstack.processes import free_port
from tests.client import token
from tests.waiting import wait_for

KEEP_ALIVE_SECONDS = 300
ROOT = Path(__file__).parents[2]
BACKENDS = "SELECT pid FROM pg_stat_activity WHERE application_name = 'service-registry'"


@dataclass
class Registry:
    """Started by `with`. Ends only what it started, by process id."""

    server: ClassVar[type[Server]] = Server
    directory: Path
    web_processes: int = 1
    worker: bool = False
    migrated: bool = True  # when not, the web processes are not waited for either
    variables: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)  # the server's
    started: list[subprocess.Popen[bytes]] = field(default_factory=list, repr=False)
    callers: list["Caller"] = field(default_factory=list, repr=False)

    def __enter__(self) -> "Registry":
        try:
            self.begin()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self.end()

    def begin(self) -> None:
        self.postgres = self.server(self.directory / "postgres", durable=True, settings=self.settings)
        self.postgres.start()
        self.environment = os.environ | {"DATABASE_URL": self.postgres.url, "DEBUG": "true"} | self.variables
        if self.migrated:
            self.migrate()
        self.ports = [free_port() for _ in range(self.web_processes)]
        self.web = [self.start_web(port) for port in self.ports]
        self.celery = (
            self.start("-m", "celery", "-A", "registry_project", "worker", "-P", "solo") if self.worker else None
        )
        for port in self.ports:
            wait_for(partial(self.ready if self.migrated else self.alive, port))

    def end(self) -> None:
        for caller in self.callers:
            caller.connection.close()
        for process in self.started:
            process.kill()
            process.wait()
        self.postgres.stop()

    def migrate(self) -> None:
        subprocess.run(
            [sys.executable, "manage.py", "migrate", "--verbosity=0"],
            env=self.environment,
            cwd=ROOT,
            check=True,
            timeout=60,
        )

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.directory / "output").open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, *arguments], env=self.environment, cwd=ROOT, stdout=output, stderr=output
            )
        self.started.append(process)
        return process

    def start_web(self, port: int) -> subprocess.Popen[bytes]:
        return self.start(
            *("-m", "uvicorn", "registry_project.asgi:application", f"--port={port}", "--no-access-log"),
            "--log-level=warning",
            # A caller of a slow machine may pause for longer than uvicorn's five seconds between two requests.
            f"--timeout-keep-alive={KEEP_ALIVE_SECONDS}",
        )

    def ready(self, port: int) -> bool:
        return self.says_ok(port, "/readyz")

    def alive(self, port: int) -> bool:
        return self.says_ok(port, "/livez")

    def says_ok(self, port: int, path: str) -> bool:
        try:
            return self.nobody(port).call("GET", path, Connection="close").status == 200
        except (OSError, http.client.HTTPException):
            return False

    def kill_web(self, place: int = 0) -> None:
        """kill -9, and start another on the same port."""
        self.web[place].kill()
        self.web[place].wait()
        self.web[place] = self.start_web(self.ports[place])
        wait_for(lambda: self.ready(self.ports[place]))

    def kill_postgres(self) -> None:
        """kill -9 the postmaster and all its children, and start again on the same directory and port."""
        self.signal_postgres(signal.SIGKILL)
        self.postgres.start()

    def signal_postgres(self, number: signal.Signals) -> None:
        """Send a signal to the postmaster and all its children."""
        postmaster = self.postgres.postmaster_pid
        assert postmaster is not None
        listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(postmaster)], capture_output=True, check=True)
        for pid in [postmaster, *map(int, listed.stdout.split())]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    @contextlib.contextmanager
    def frozen_postgres(self) -> Iterator[None]:
        """Stop every process of the server meanwhile: the kernel takes connections and bytes for it, nobody answers."""
        self.signal_postgres(signal.SIGSTOP)
        try:
            yield
        finally:
            self.signal_postgres(signal.SIGCONT)

    def configure(self, name: str, value: str) -> None:
        """Change a setting of the running server; its sessions take it up a moment later."""
        with psycopg.connect(self.postgres.url, connect_timeout=5, autocommit=True) as connection:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute(f"ALTER SYSTEM SET {name} = '{value}'")
            connection.execute("SELECT pg_reload_conf()")

    def kill_backend(self) -> None:
        """kill -9 one backend of the web process: PostgreSQL then restarts all of them."""
        (pid,) = wait_for(lambda: self.sql(BACKENDS))[0]
        os.kill(pid, signal.SIGKILL)

    def deadlocks(self) -> int:
        """As PostgreSQL counted them, or wrote into its log: a connection's counters may be seconds late."""
        counted: int = self.sql("SELECT sum(deadlocks)::int FROM pg_stat_database")[0][0]
        return max(counted, self.postgres.log.read_text().count("deadlock detected"))

    def sql(self, query: str) -> list[Any]:
        with psycopg.connect(self.postgres.url, connect_timeout=5) as connection:
            return connection.execute(query).fetchall()

    def try_sql(self, query: str) -> list[Any]:
        """The rows; none while the server cannot be asked."""
        try:
            return self.sql(query)
        except psycopg.OperationalError:
            return []

    def execute(self, statement: str) -> None:
        with psycopg.connect(self.postgres.url, connect_timeout=5) as connection:
            connection.execute(statement)

    def caller(self, *groups: str, subject: str = "someone", place: int = 0) -> "Caller":
        return self.with_bearer(token(*groups, subject=subject), place)

    def with_bearer(self, bearer: str | None, place: int = 0) -> "Caller":
        self.callers.append(Caller(self.ports[place], bearer))
        return self.callers[-1]

    def nobody(self, port: int | None = None) -> "Caller":
        self.callers.append(Caller(port or self.ports[0], None))
        return self.callers[-1]


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Caller:
    """One keep-alive connection; made anew after a failure, which is raised."""

    def __init__(self, port: int, bearer: str | None, timeout_seconds: float = 60) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_seconds)
        self.headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        """Raises OSError or http.client.HTTPException when there is no answer."""
        content = None if body is None else json.dumps(body).encode()
        try:
            sent = {"Content-Type": "application/json"} | self.headers | headers
            self.connection.request(method, path, content, sent)
            response = self.connection.getresponse()
            lowered = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, lowered, response.read())
        except (OSError, http.client.HTTPException):
            self.connection.close()
            raise
