"""Clients of the documentation and the demo, as processes: they end when a successor has their id, or are removed."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from registry_project import env
from registry_project.devstack.issuer import clients
from tests.client import token
from tests.server.registry import ROOT, Registry
from tests.waiting import wait_for

Start = Callable[[Registry, Path], subprocess.Popen[str]]
KEY = {"service_name": "restarted", "instance_id": "restarted-1"}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("clients")) as running:
        yield running


def start_demo_service(registry: Registry, _directory: Path) -> subprocess.Popen[str]:
    secret = clients.all_clients(env.data_directory())[clients.DEVELOPER].secret
    variables = {
        "DEMO_REGISTRY": f"http://127.0.0.1:{registry.ports[0]}",
        "DEMO_ISSUER": os.environ["OIDC_ISSUER"],
        "DEMO_SECRET": secret,
    }
    return start(variables, "-m", "registry_project.devstack.demo.service", *KEY.values())


def start_example(registry: Registry, directory: Path) -> subprocess.Popen[str]:
    bearer = directory / "token"
    bearer.write_text(token("registry-services", "team-demo"))
    variables = {"REGISTRY": f"http://127.0.0.1:{registry.ports[0]}", "TOKEN_FILE": str(bearer), "TTL_SECONDS": "5"}
    return start(variables, "docs/examples/register.py", *KEY.values(), "10.0.0.7", "8080")


def start(variables: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, *arguments]
    return subprocess.Popen(command, env=os.environ | variables, cwd=ROOT, stderr=subprocess.PIPE, text=True)


@contextmanager
def running(start: Start, registry: Registry, directory: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a client, and wait until it has registered."""
    before = read_epoch(registry)
    process = start(registry, directory)
    try:
        wait_for(lambda: read_epoch(registry) > before)
        yield process
    finally:
        process.kill()
        process.communicate()


def read_instance(registry: Registry) -> dict[str, Any]:
    path = f"/registry/instance/{'/'.join(KEY.values())}"
    found: dict[str, Any] = registry.caller("registry-readers").call("GET", path).json
    return found


def read_epoch(registry: Registry) -> int:
    return int(read_instance(registry).get("epoch", 0))


both = pytest.mark.parametrize("start", [start_demo_service, start_example], ids=["demo", "example"])


@both
def test_client_whose_successor_has_registered_ends_and_leaves_it_on_the_list(
    start: Start, registry: Registry, tmp_path: Path
) -> None:
    with running(start, registry, tmp_path) as old, running(start, registry, tmp_path) as new:
        # The heartbeat of the old process is due in a third of its TTL.
        assert old.wait(timeout=60) == 1
        assert old.stderr is not None
        assert old.stderr.read().startswith("restarted-1 stops: ")
        assert read_instance(registry)["state"] == "live"
        new.send_signal(signal.SIGTERM)
        assert new.wait(timeout=60) == 0
        assert read_instance(registry)["reason"] == "deregistered"


@both
def test_client_that_an_operator_has_removed_ends(start: Start, registry: Registry, tmp_path: Path) -> None:
    with running(start, registry, tmp_path) as client:
        operator = registry.caller("registry-operators", subject="operator")
        assert operator.call("POST", "/registry/deregister", KEY).status == 204
        assert client.wait(timeout=60) == 1
        assert client.stderr is not None
        assert client.stderr.read().startswith("restarted-1 stops: ")


@both
def test_client_whose_row_is_lost_registers_again(start: Start, registry: Registry, tmp_path: Path) -> None:
    with running(start, registry, tmp_path):
        epoch = read_epoch(registry)
        registry.execute(
            "DELETE FROM service_registry_lease; DELETE FROM service_registry_instance; "
            "DELETE FROM service_registry_change WHERE instance_id = 'restarted-1'"
        )
        wait_for(lambda: read_epoch(registry) > epoch)
