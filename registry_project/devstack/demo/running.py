"""The registry that the demo uses: the one that runs in this checkout, else one of its own while it lasts."""

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

from registry_project.devstack import environment_file, issuer, processes
from registry_project.devstack.demo.http_json import NoAnswerError, call
from registry_project.devstack.exceptions import EmbeddedError
from registry_project.devstack.issuer import clients

START_SECONDS = 30
STOP_SECONDS = 30


@dataclass(frozen=True)
class Registry:
    url: str
    issuer_url: str
    secret: str

    def ready(self) -> bool:
        try:
            return call("GET", f"{self.url}/readyz")[0] == 200
        except NoAnswerError:
            return False


@contextlib.contextmanager
def registry() -> Iterator[Registry]:
    """A registry that is ready. Raises EmbeddedError when there is none to be had, or it takes no tokens of ours."""
    found = find()
    if found and found.ready():
        yield found
        return
    print("No registry runs in this checkout; starting one for the demo.", flush=True)
    supervisor = start()
    try:
        yield wait_for(supervisor)
    finally:
        processes.stop(supervisor, signal.SIGTERM, STOP_SECONDS)


def find() -> Registry | None:
    """What the environment file of a running registry says."""
    variables = environment_file.read()
    if not {"OIDC_ISSUER", "REGISTRY_PORT"} <= variables.keys():
        return None
    if urlsplit(variables["OIDC_ISSUER"]).path != issuer.PATH:
        raise EmbeddedError(
            f"The demo makes its own tokens, and this registry takes those of {variables['OIDC_ISSUER']}."
        )
    secret = clients.all_clients(environment_file.data_directory())[clients.DEVELOPER].secret
    return Registry(f"http://127.0.0.1:{variables['REGISTRY_PORT']}", variables["OIDC_ISSUER"], secret)


def start() -> subprocess.Popen[bytes]:
    """Start one on free ports. What it says goes into a file: the terminal belongs to the demo."""
    ports = {"REGISTRY_PORT": str(processes.free_port()), "REGISTRY_ISSUER_PORT": str(processes.free_port())}
    variables = {**os.environ, **ports, "REGISTRY_BIND": "127.0.0.1"}
    log().parent.mkdir(parents=True, exist_ok=True)
    with log().open("wb") as output:
        return processes.spawn([sys.executable, "-m", "registry_project.devstack"], variables=variables, output=output)


def log() -> Path:
    return environment_file.data_directory() / "demo.log"


def wait_for(supervisor: subprocess.Popen[bytes]) -> Registry:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and supervisor.poll() is None:
        found = find()
        if found and found.ready():
            return found
        time.sleep(0.2)
    raise EmbeddedError(f"The registry did not start; {log()} says why.")
