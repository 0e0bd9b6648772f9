"""Find the registry that runs in this checkout, or start one for the demo."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from registry_project import env
from registry_project.devstack import DevstackError, issuer, processes
from registry_project.devstack.demo.http_json import NoAnswerError, call
from registry_project.devstack.issuer import clients

START_SECONDS = 30
STOP_SECONDS = 30


@dataclass(frozen=True)
class Registry:
    url: str
    issuer_url: str
    secret: str

    def is_ready(self) -> bool:
        try:
            return call("GET", f"{self.url}/readyz")[0] == 200
        except NoAnswerError:
            return False


@contextlib.contextmanager
def find_or_start() -> Iterator[Registry]:
    """Yield a registry that is ready.

    Raises DevstackError when none starts, or it uses another issuer.
    """
    found = find()
    if found and found.is_ready():
        yield found
        return
    print("No registry is running in this checkout; starting one for the demo.", flush=True)
    supervisor = start()
    try:
        yield wait_for(supervisor)
    finally:
        processes.stop(supervisor, signal.SIGTERM, STOP_SECONDS)


def find() -> Registry | None:
    """Return the registry that the environment file describes."""
    try:
        variables = env.read_environment_file(env.default_environment_file())
    except OSError:
        return None
    if not {"OIDC_ISSUER", "REGISTRY_PORT"} <= variables.keys():
        return None
    if urlsplit(variables["OIDC_ISSUER"]).path != issuer.PATH:
        raise DevstackError(
            f"The demo needs the development issuer, and this registry accepts tokens of {variables['OIDC_ISSUER']}."
        )
    secret = clients.all_clients(env.data_directory())[clients.DEVELOPER].secret
    return Registry(f"http://127.0.0.1:{variables['REGISTRY_PORT']}", variables["OIDC_ISSUER"], secret)


def start() -> subprocess.Popen[bytes]:
    """Start a registry on free ports.

    Its output goes to a file, since the terminal shows the demo.
    """
    ports = {"REGISTRY_PORT": str(processes.free_port()), "REGISTRY_ISSUER_PORT": str(processes.free_port())}
    variables = {**os.environ, **ports, "REGISTRY_BIND": "127.0.0.1"}
    log_path().parent.mkdir(parents=True, exist_ok=True)
    with log_path().open("wb") as output:
        return processes.spawn([sys.executable, "-m", "registry_project.devstack"], variables=variables, output=output)


def log_path() -> Path:
    return env.data_directory() / "demo.log"


def wait_for(supervisor: subprocess.Popen[bytes]) -> Registry:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and supervisor.poll() is None:
        found = find()
        if found and found.is_ready():
            return found
        time.sleep(0.2)
    raise DevstackError(f"The registry did not start; see {log_path()}.")
