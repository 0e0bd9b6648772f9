"""A registry of real processes: a durable PostgreSQL, web processes, and a worker."""

import contextlib
import fcntl
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import psycopg

from registry_project.devstack.postgres import Server
from registry_project.devstack.processes import free_port
from tests.client import Answer, registration, token
from tests.waiting import wait_for

# A caller may pause for long between two requests, and no instance may expire that is not meant to.
FOR_A_SLOW_MACHINE = {"REGISTRY_KEEP_ALIVE_SECONDS": "300", "REGISTRY_DEFAULT_TTL_SECONDS": "86400"}
JSON_HEADER = {"Content-Type": "application/json"}
ROOT = Path(__file__).parents[2]
BACKENDS = "SELECT pid FROM pg_stat_activity WHERE application_name = 'service-registry'"


# The observation window of a copied cluster, and its change log, begin with the copy.
RENEW_INITIAL_ROWS = """
UPDATE service_registry_registrystate
SET observed_at = clock_timestamp(), window_started_at = clock_timestamp(), swept_at = clock_timestamp();
UPDATE service_registry_change SET at = clock_timestamp(), mark = substr(md5(random()::text), 1, 8)
"""


def environment_for(server: Server) -> dict[str, str]:
    return os.environ | {"DATABASE_URL": server.url, "DEBUG": "true"}


def run_migrations(environment: dict[str, str]) -> None:
    command = [sys.executable, "manage.py", "migrate", "--verbosity=0"]
    subprocess.run(command, env=environment, cwd=ROOT, check=True, timeout=120)


def copy_migrated_cluster(directory: Path) -> None:
    """Copy a cluster with all tables into `directory`. The first caller of a test run creates it.

    initdb and the migrations take half of the time in which a registry starts.
    """
    place = Path(os.environ.get("REGISTRY_TESTS_DIRECTORY", directory.parent))
    template = place / "migrated"
    with (place / "migrated.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not template.exists():
            server = Server(place / "unfinished", durable=False)
            server.start()
            try:
                run_migrations(environment_for(server))
            finally:
                server.stop()
            server.directory.rename(template)
    shutil.copytree(template, directory)


@dataclass
class Registry:
    """A registry that `with` starts and ends, by the ids of the processes that it started.

    Arguments:
        worker: whether a Celery worker runs beside the web processes.
        migrated: whether the database has tables. Without them the web processes are alive, and not ready.
        variables: environment variables of all processes.
        settings: of PostgreSQL.
    """

    server: ClassVar[type[Server]] = Server
    directory: Path
    web_processes: int = 1
    worker: bool = False
    migrated: bool = True
    variables: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    started: list[subprocess.Popen[bytes]] = field(default_factory=list, repr=False)
    callers: list["Caller"] = field(default_factory=list, repr=False)

    def __enter__(self) -> "Registry":
        try:
            self.start_all()
        except BaseException:
            self.stop_all()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop_all()

    def start_all(self) -> None:
        self.postgres = self.server(self.directory / "postgres", durable=True, settings=self.settings)
        if self.migrated:
            copy_migrated_cluster(self.postgres.directory)
        self.postgres.start()
        if self.migrated:
            self.execute(RENEW_INITIAL_ROWS)
        self.environment = environment_for(self.postgres) | FOR_A_SLOW_MACHINE | self.variables
        self.ports = [free_port() for _ in range(self.web_processes)]
        self.web = [self.start_web(port) for port in self.ports]
        self.celery = (
            self.start("-m", "celery", "-A", "registry_project", "worker", "-P", "solo") if self.worker else None
        )
        for port in self.ports:
            wait_for(partial(self.is_ready if self.migrated else self.is_alive, port))

    def stop_all(self) -> None:
        for caller in self.callers:
            caller.connection.close()
        for process in self.started:
            process.kill()
            process.wait()
        self.postgres.stop()

    def migrate(self) -> None:
        run_migrations(self.environment)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.directory / "output").open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, *arguments], env=self.environment, cwd=ROOT, stdout=output, stderr=output
            )
        self.started.append(process)
        return process

    def start_web(self, port: int) -> subprocess.Popen[bytes]:
        return self.start(
            *("-m", "uvicorn", "registry_project.asgi:application", "--http=registry_project.asgi:Connection"),
            *(f"--port={port}", "--no-access-log", "--log-level=warning"),
        )

    def start_wsgi(self) -> int:
        """Start Django under plain WSGI on the same database, and return its port."""
        port = free_port()
        self.start("-m", "tests.front_ends.wsgi_server", str(port))
        wait_for(partial(self.is_ready, port))
        return port

    def is_ready(self, port: int) -> bool:
        return self.is_ok(port, "/readyz")

    def is_alive(self, port: int) -> bool:
        return self.is_ok(port, "/livez")

    def is_ok(self, port: int, path: str) -> bool:
        try:
            return self.anonymous_caller(port).call("GET", path, Connection="close").status == 200
        except (OSError, http.client.HTTPException):
            return False

    def restart_web(self, place: int = 0) -> None:
        """Start the web process again on its port, once it has ended."""
        self.web[place].wait()
        self.web[place] = self.start_web(self.ports[place])
        wait_for(lambda: self.is_ready(self.ports[place]))

    def kill_web(self, place: int = 0) -> None:
        """Kill a web process, and start another one on its port."""
        self.web[place].kill()
        self.restart_web(place)

    def kill_postgres(self) -> None:
        """Kill all processes of PostgreSQL, and start it again on the same directory and port."""
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
        """Stop every process of the server by SIGSTOP: the kernel accepts connections and bytes, nothing responds."""
        self.signal_postgres(signal.SIGSTOP)
        try:
            yield
        finally:
            self.signal_postgres(signal.SIGCONT)

    @contextlib.contextmanager
    def stopped_postgres(self) -> Iterator[None]:
        """End the server, and start it again afterwards."""
        self.postgres.stop_immediately()
        assert self.postgres.process is not None
        self.postgres.process.wait()
        try:
            yield
        finally:
            self.postgres.start()

    def configure(self, name: str, value: str) -> None:
        """Change a setting of the running server. Its sessions read it a moment later."""
        with psycopg.connect(self.postgres.url, connect_timeout=5, autocommit=True) as connection:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute(f"ALTER SYSTEM SET {name} = '{value}'")
            connection.execute("SELECT pg_reload_conf()")

    def kill_backend(self) -> None:
        """Kill one backend of the web process: PostgreSQL then restarts all of them."""
        (pid,) = wait_for(lambda: self.sql(BACKENDS))[0]
        os.kill(pid, signal.SIGKILL)

    def deadlocks(self) -> int:
        """Count deadlocks by PostgreSQL's counter and its log: a session reports its counters seconds late."""
        counted: int = self.sql("SELECT sum(deadlocks)::int FROM pg_stat_database")[0][0]
        return max(counted, self.postgres.log.read_text().count("deadlock detected"))

    def sql(self, query: str) -> list[Any]:
        with psycopg.connect(self.postgres.url, connect_timeout=5) as connection:
            return connection.execute(query).fetchall()

    def try_sql(self, query: str) -> list[Any]:
        """Return the rows, or none while the server does not respond."""
        try:
            return self.sql(query)
        except psycopg.OperationalError:
            return []

    def execute(self, statement: str) -> None:
        with psycopg.connect(self.postgres.url, connect_timeout=5) as connection:
            connection.execute(statement)

    def caller(self, *groups: str, subject: str = "someone", place: int = 0) -> "Caller":
        """Make a caller of the web process at `place`, whose token has these groups."""
        return self.caller_with_token(token(*groups, subject=subject), place)

    def caller_with_token(self, bearer: str | None, place: int = 0) -> "Caller":
        self.callers.append(Caller(self.ports[place], bearer))
        return self.callers[-1]

    def anonymous_caller(self, port: int | None = None) -> "Caller":
        self.callers.append(Caller(port or self.ports[0], None))
        return self.callers[-1]

    def read_metric(self, name: str, place: int = 0) -> float:
        """Return a metric of the web process at `place`, summed over all labels that `name` does not give."""
        text = self.caller("registry-readers", place=place).call("GET", "/metrics").body.decode()
        lines = [line for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    @contextlib.contextmanager
    def blocked_request(self, caller: "Caller", path: str) -> Iterator[Callable[[], "Answer"]]:
        """Send a request that waits for a change; within the block it waits. Gives what receives the response."""
        kind = "poll" if "/watch" in path else "read"
        before = self.read_metric(f'registry_subscribers{{kind="{kind}"}}')
        caller.connection.request("GET", path, headers=caller.headers)
        wait_for(lambda: self.read_metric(f'registry_subscribers{{kind="{kind}"}}') > before)
        try:
            yield caller.receive
        finally:
            caller.connection.close()


# Of the servers, and the headers that only Django's views and sessions add.
IGNORED_HEADERS = {"date", "server", "connection", "allow", "vary"}


def comparable(reply: Answer) -> tuple[int, dict[str, str], bytes]:
    """Return a response without what may differ between ASGI and WSGI."""
    headers = {name: value for name, value in reply.headers.items() if name not in IGNORED_HEADERS}
    if reply.status == 304:
        headers = {name: value for name, value in headers.items() if not name.startswith("content-")}
    return reply.status, headers, reply.body


class Caller:
    """A keep-alive connection with a token. It is made anew after a failure, which is raised."""

    def __init__(self, port: int, bearer: str | None, timeout_seconds: float = 60) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_seconds)
        self.headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Send a request with a JSON body. Raises OSError or http.client.HTTPException when there is no response."""
        content = None if body is None else json.dumps(body).encode()
        try:
            self.connection.request(method, path, content, JSON_HEADER | self.headers | headers)
            return self.receive()
        except (OSError, http.client.HTTPException):
            self.connection.close()
            raise

    def receive(self) -> Answer:
        response = self.connection.getresponse()
        lowered = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, lowered, response.read())

    def register(self, service_name: str, instance_id: str = "a", **fields: Any) -> str:
        """Register an instance that does not expire during a test, and return the log's newest index."""
        body = registration(service_name, instance_id, **{"ttl_seconds": 3600} | fields)
        reply = self.call("POST", "/registry/register", body)
        assert reply.status in {200, 201}, reply.body
        return self.read_newest_index()

    def read_newest_index(self) -> str:
        return self.call("GET", "/registry/services?limit=1").headers["x-registry-index"]
