"""A registry under load, as in production: PostgreSQL on disk, an issuer, web processes and a worker."""

import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psycopg

from benchmarks import cpu
from benchmarks.client import LoadResult, generate_load
from benchmarks.requests import Fleet, RequestFactory, RequestKind
from registry_project.devstack import processes
from registry_project.devstack.issuer import keys
from registry_project.devstack.issuer.tokens import issue_token
from registry_project.devstack.postgres import Server

ROOT = Path(__file__).parents[1]
APPLICATION = "registry_project.asgi:application"
CONNECTION = "registry_project.asgi:Connection"
EMPTY_APPLICATION = "benchmarks.empty_app:application"
AUDIENCE = "service-registry"
TOKEN_SECONDS = 7200
READY_SECONDS = 60


class Issuer(ThreadingHTTPServer):
    """Publishes the development issuer's key at another URL: with DEBUG off the registry refuses that issuer."""

    daemon_threads = True

    def __init__(self, data: Path) -> None:
        super().__init__(("127.0.0.1", 0), IssuerHandler)
        self.data = data
        keys.public_jwk(data)  # made before two threads can make it at once
        self.url = f"http://127.0.0.1:{self.server_port}/realms/bench"


class IssuerHandler(BaseHTTPRequestHandler):
    """Answers with the key set, or the discovery document at any other path."""

    server: Issuer

    def do_GET(self) -> None:
        discovery = {"issuer": self.server.url, "jwks_uri": f"{self.server.url}/keys"}
        document = {"keys": [keys.public_jwk(self.server.data)]} if self.path.endswith("/keys") else discovery
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the standard library's name
        """Write no access log."""


class Measurement:
    """The result of one kind of request, and the CPU microseconds that each request took by process."""

    def __init__(self, load: LoadResult, web_seconds: float, postgres_seconds: float, client_seconds: float) -> None:
        self.load = load
        self.web_us, self.postgres_us, self.client_us = (
            seconds / len(load.latencies) * 1e6 for seconds in (web_seconds, postgres_seconds, client_seconds)
        )


class Registry:
    """A registry of one checkout, started by `with`; `start_web` starts its web processes.

    Arguments:
        directory: for its database, key and output; made when missing.
        fleet: what its requests are about.
        checkout: the directory of the code that runs. Its own `.venv` is used where it has one.
    """

    def __init__(self, directory: Path, fleet: Fleet, checkout: Path = ROOT) -> None:
        directory.mkdir(mode=0o755, exist_ok=True)
        self.checkout = checkout.resolve()
        own_python = self.checkout / ".venv/bin/python"
        self.python = str(own_python) if own_python.exists() else sys.executable
        self.data = directory / "data"
        self.output = directory / "output"
        self.postgres = Server(directory / "postgres", settings={"shared_buffers": "256MB"})
        self.issuer = Issuer(self.data)
        self.worker: subprocess.Popen[bytes] | None = None
        self.webs: list[subprocess.Popen[bytes]] = []
        self.ports: list[int] = []
        self.requests = RequestFactory(fleet, [self.issue_token(f"team-{number}") for number in range(fleet.teams)])

    def __enter__(self) -> "Registry":
        self.postgres.start()
        self.environment = os.environ | {
            "DEBUG": "false",
            "DATABASE_URL": self.postgres.url,
            "SECRET_KEY": secrets.token_urlsafe(50),
            "ALLOWED_HOSTS": "127.0.0.1",
            "OIDC_ISSUER": self.issuer.url,
            "OIDC_AUDIENCE": AUDIENCE,
            "OIDC_RP_CLIENT_ID": "unused",
            "OIDC_RP_CLIENT_SECRET": "unused",
            "REGISTRY_DATA_DIR": str(self.data),
        }
        threading.Thread(target=self.issuer.serve_forever, daemon=True).start()
        subprocess.run(
            [self.python, "manage.py", "migrate", "--verbosity=0"],
            env=self.environment,
            cwd=self.checkout,
            check=True,
        )
        self.worker = self.start("-m", "celery", "-A", "registry_project", "worker", "-P", "solo")
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop_web()
        if self.worker:
            processes.stop(self.worker, signal.SIGKILL, 5)
        self.issuer.shutdown()
        self.postgres.stop()

    def issue_token(self, team: str, subject: str = "") -> str:
        """Return a token of a team's member, by default the team itself."""
        groups = ("registry-services", team)
        return issue_token(self.data, self.issuer.url, subject or team, groups, AUDIENCE, ttl_seconds=TOKEN_SECONDS)

    def start_web(self, web_processes: int, threads: int, application: str = APPLICATION) -> None:
        """Start web processes with `threads` as WEB_THREADS, in place of the running ones."""
        self.stop_web()
        self.ports = [processes.free_port() for _ in range(web_processes)]
        self.environment["WEB_THREADS"] = str(threads)
        server = ("-m", "uvicorn", application, f"--http={CONNECTION}", "--no-access-log", "--log-level=warning")
        self.webs = [self.start(*server, f"--port={port}") for port in self.ports]
        for port in self.ports:
            self.wait_until_ready(port)

    def stop_web(self) -> None:
        for process in self.webs:
            processes.stop(process, signal.SIGTERM, 10)
        self.webs = []

    def kinds(self) -> list[RequestKind]:
        return self.requests.kinds(self.ports)

    def measure(self, kind: RequestKind, connections: int, seconds: float) -> Measurement:
        """Load the web processes with one kind of request."""
        before = self.read_cpu_seconds()
        load = generate_load(self.ports, connections, seconds, kind.status, kind.make_requests)
        after = self.read_cpu_seconds()
        return Measurement(load, *(end - begin for begin, end in zip(before, after, strict=True)))

    def read_cpu_seconds(self) -> tuple[float, float, float]:
        """Of the web processes, of PostgreSQL, and of this process."""
        web = cpu.read_cpu_seconds(process.pid for process in self.webs)
        return web, cpu.read_cpu_seconds([self.postgres.postmaster_pid or 0]), time.process_time()

    def vacuum(self) -> None:
        """Vacuum now, so that no kind is measured while autovacuum cleans up after the one before."""
        with psycopg.connect(self.postgres.url, autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE")

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start Python in the checkout."""
        with self.output.open("ab") as output:
            return subprocess.Popen(
                [self.python, *arguments],
                env=self.environment,
                cwd=self.checkout,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=processes.end_with_parent(signal.SIGTERM),  # noqa: PLW1509 - the main thread forks
            )

    def wait_until_ready(self, port: int) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not is_ready(port):
            if time.monotonic() > deadline:
                raise SystemExit(f"The registry was not ready in time. Its output: {self.output.read_text()[-2000:]}")
            time.sleep(0.1)


def is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as response:
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError):
        return False
