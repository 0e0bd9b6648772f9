"""The registry under load: a durable PostgreSQL on disk, an issuer, web processes and a worker, as in production."""

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
from typing import IO

import psycopg

from registry_project.devstack import processes
from registry_project.devstack.issuer import keys
from registry_project.devstack.issuer.tokens import issue_token
from registry_project.devstack.postgres import Server

ROOT = Path(__file__).parents[1]
AUDIENCE = "service-registry"
READY_SECONDS = 60


class Issuer(ThreadingHTTPServer):
    """Publishes the development issuer's key under another address: that issuer itself is refused with DEBUG off."""

    daemon_threads = True

    def __init__(self, data: Path) -> None:
        super().__init__(("127.0.0.1", 0), Published)
        self.data = data
        keys.public_jwk(data)  # made by nobody else at the same moment
        self.url = f"http://127.0.0.1:{self.server_port}/realms/bench"


class Published(BaseHTTPRequestHandler):
    server: Issuer

    def do_GET(self) -> None:
        keys_url = f"{self.server.url}/keys"
        discovery = {"issuer": self.server.url, "jwks_uri": keys_url}
        document = {"keys": [keys.public_jwk(self.server.data)]} if self.path.endswith("/keys") else discovery
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the standard library's name
        """Say nothing."""


class Registry:
    """Started by `with`; `web` starts the web processes, and again with other threads."""

    def __init__(self, directory: Path, web_processes: int) -> None:
        self.data = directory / "data"
        self.output = directory / "output"
        self.web_processes = web_processes
        self.postgres = Server(directory / "postgres", settings={"shared_buffers": "256MB"})
        self.issuer = Issuer(self.data)
        self.worker: subprocess.Popen[bytes] | None = None
        self.webs: list[subprocess.Popen[bytes]] = []
        self.ports: list[int] = []

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
            [sys.executable, "manage.py", "migrate", "--verbosity=0"], env=self.environment, cwd=ROOT, check=True
        )
        self.worker = self.start("-m", "celery", "-A", "registry_project", "worker", "-P", "solo")
        return self

    def __exit__(self, *_error: object) -> None:
        self.end_web()
        if self.worker:
            processes.stop(self.worker, signal.SIGKILL, 5)
        self.issuer.shutdown()
        self.postgres.stop()

    def token(self, team: str) -> str:
        return issue_token(self.data, self.issuer.url, team, ("registry-services", team), AUDIENCE)

    def web(self, threads: int) -> None:
        """Start the web processes, with so many threads each, in place of those that run."""
        self.end_web()
        self.ports = [processes.free_port() for _ in range(self.web_processes)]
        self.environment["WEB_THREADS"] = str(threads)
        server = ("-m", "uvicorn", "registry_project.asgi:application", "--no-access-log", "--log-level=warning")
        self.webs = [self.start(*server, f"--port={port}") for port in self.ports]
        for port in self.ports:
            self.wait_for(port)

    def vacuum(self) -> None:
        """So that no kind of request is measured while the server clears up after the one before."""
        with psycopg.connect(self.postgres.url, autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE")

    def end_web(self) -> None:
        for process in self.webs:
            processes.stop(process, signal.SIGTERM, 10)
        self.webs = []

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        output: IO[bytes]
        with self.output.open("ab") as output:
            return processes.spawn([sys.executable, *arguments], variables=self.environment, output=output)

    def wait_for(self, port: int) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not ready(port):
            if time.monotonic() > deadline:
                raise SystemExit(f"The registry was not ready in time; it said: {self.output.read_text()[-2000:]}")
            time.sleep(0.1)


def ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False
