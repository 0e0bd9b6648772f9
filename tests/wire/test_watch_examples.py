"""The examples of docs/watching.md, run as they stand."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.client import registration, token
from tests.wire.running import ROOT, Running, wait_for
from tests.wire.test_watch import register

pytestmark = pytest.mark.wire
EXAMPLES = ROOT / "docs" / "examples"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with Running(tmp_path_factory.mktemp("examples")) as running:
        yield running


@contextmanager
def example(registry: Running, output: Path, *command: str) -> Iterator[None]:
    variables = {"REGISTRY": f"http://127.0.0.1:{registry.ports[0]}", "TOKEN": token("registry-readers")}
    with output.open("wb") as printed:
        process = subprocess.Popen(
            command, env=os.environ | variables, stdout=printed, stderr=printed, start_new_session=True
        )
        try:
            yield
        finally:
            os.killpg(process.pid, 9)
            process.wait()


def test_the_example_in_python_keeps_a_copy(registry: Running, tmp_path: Path) -> None:
    """Also when the web process is killed, and when it had to start over."""
    team = registry.caller("registry-services", "team")
    output = tmp_path / "output"
    for number in range(3):
        register(team, "python", f"i-{number}")
    with example(registry, output, sys.executable, str(EXAMPLES / "watch.py")):
        wait_for(lambda: register(team, "python", "i-3", weight=int(time.time()) % 60_000) and output.read_text())
        assert "updated python i-3 4" in output.read_text() or "registered python i-3 4" in output.read_text()
        registry.kill_web()
        team = registry.caller("registry-services", "team")
        register(team, "python", "i-4")
        team.call("POST", "/registry/deregister", {"service_name": "python", "instance_id": "i-0"})
        wait_for(lambda: output.read_text().endswith("registered python i-4 5\nderegistered python i-0 4\n"))


def test_the_example_in_shell_prints_addresses(registry: Running, tmp_path: Path) -> None:
    team = registry.caller("registry-services", "team")
    output = tmp_path / "output"
    team.call("POST", "/registry/register", registration("shell", "a", port=1001))
    with example(registry, output, "sh", str(EXAMPLES / "watch.sh"), "shell"):
        wait_for(lambda: output.read_text().rstrip().endswith(": http://10.0.0.1:1001"))
        team.call("POST", "/registry/register", registration("shell", "b", port=1002))
        wait_for(lambda: output.read_text().rstrip().endswith(": http://10.0.0.1:1001 http://10.0.0.1:1002"))
    assert len(output.read_text().splitlines()) == 2
