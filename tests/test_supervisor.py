"""`make run`, as real processes: what it starts, what it survives, and that it leaves nothing behind."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from registry_project.devstack import processes
from registry_project.devstack.exceptions import EmbeddedError
from registry_project.devstack.parts import Command, Tended
from registry_project.devstack.plan import Plan
from registry_project.devstack.supervisor import Supervisor

CHECKOUT = Path(__file__).resolve().parent.parent
# The machine of the checks is busy with other tests meanwhile.
PATIENCE_SECONDS = 60
# What the suite has set for itself, and these registries must not inherit.
OF_THE_SUITE = ("DATABASE_URL", "OIDC_ISSUER", "SECRET_KEY", "DJANGO_SETTINGS_MODULE", "CELERY_BROKER_URL")


class Registry:
    """One `make run` after another on one data directory and one pair of ports."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "data"
        self.output = directory / "output"
        self.port = processes.free_port()
        kept = {name: value for name, value in os.environ.items() if name not in OF_THE_SUITE}
        ports = {"REGISTRY_PORT": str(self.port), "REGISTRY_ISSUER_PORT": str(processes.free_port())}
        self.variables = {**kept, **ports, "REGISTRY_DATA_DIR": str(self.directory)}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, **variables: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "registry_project.devstack"]
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                command, cwd=CHECKOUT, env=self.variables | variables, stdout=output, stderr=output
            )
        return self.process

    def start_until_ready(self) -> float:
        """Seconds until it said that it is ready."""
        began_at = time.monotonic()
        process = self.start()
        wait_until(lambda: "Ctrl-C stops it" in self.said() or process.poll() is not None)
        assert process.poll() is None, self.said()
        return time.monotonic() - began_at

    def refused(self, **variables: str) -> tuple[int, str]:
        """Exit code and words of a start that must fail."""
        return self.start(**variables).wait(PATIENCE_SECONDS), self.said()

    def stop(self, how: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(how)
        return self.process.wait(PATIENCE_SECONDS)

    def said(self) -> str:
        return self.output.read_text()

    def ready(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def shell(self, command: str) -> str:
        """Run a command as somebody would in a second shell."""
        return subprocess.run(
            command, shell=True, cwd=CHECKOUT, env=self.variables, capture_output=True, text=True, check=True
        ).stdout

    def left(self) -> dict[int, str]:
        """The processes of this registry: those that have its data directory in their environment."""
        mark = f"REGISTRY_DATA_DIR={self.directory}\0".encode()
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (process / "environ").read_bytes():
                    found[int(process.name)] = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue  # it has ended, or is somebody else's
        return found

    def pid_of(self, words: str) -> int:
        return next(pid for pid, command in self.left().items() if words in command)


def wait_until(seen: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not seen():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    return Registry(tmp_path_factory.mktemp("registry"))


@pytest.fixture
def registry(kept: Registry) -> Iterator[Registry]:
    """A registry that is not running, whose data are kept from test to test: only its first start is a slow one."""
    yield kept
    if kept.process and kept.process.poll() is None:
        kept.stop(signal.SIGTERM)
    for pid in kept.left():
        os.kill(pid, signal.SIGKILL)


def test_what_it_prints_works_and_it_leaves_nothing(registry: Registry) -> None:
    registry.start_until_ready()
    curl = re.search(r"^curl .*?; echo$", registry.said(), re.MULTILINE | re.DOTALL)
    assert curl is not None
    assert json.loads(registry.shell(curl[0]))["instance_id"] == "payments-1"
    assert registry.stop(signal.SIGTERM) == 0
    assert registry.left() == {}
    assert not (registry.directory / "environment").exists()


def test_its_environment_is_there_for_a_second_shell_alone(registry: Registry) -> None:
    registry.start_until_ready()
    assert (registry.directory / "environment").stat().st_mode & 0o777 == 0o600
    assert "[X]" in registry.shell(f'"{sys.executable}" manage.py showmigrations service_registry')


# What a WSGI server does with the application, until it says that it is ready.
WSGI = """
import threading, time
from wsgiref.util import setup_testing_defaults
from registry_project.devstack import environment_file
environment_file.adopt()
from registry_project.wsgi import application

def status():
    said, environ = [], {"PATH_INFO": "/readyz"}
    setup_testing_defaults(environ)
    answer = application(environ, lambda status, headers, exc_info=None: said.append(status))
    answer.close()
    return said[0]

while status() != "200 OK":
    time.sleep(0.1)
print(sorted(thread.name for thread in threading.enumerate() if thread.name == "pulse"))
"""


def test_the_wsgi_application_serves_and_pulses_too(registry: Registry) -> None:
    registry.start_until_ready()
    assert registry.shell(f"'{sys.executable}' -c '{WSGI}'") == "['pulse']\n"


def test_a_second_one_on_the_same_data_is_refused(registry: Registry) -> None:
    registry.start_until_ready()
    second = Registry(registry.directory.parent)
    second.output = second.output.with_name("second")
    code, said = second.refused()
    assert (code, len(said.splitlines())) == (2, 1)
    assert "is running with the data in" in said
    assert registry.ready()


def test_a_start_right_after_kill_9_works(registry: Registry) -> None:
    registry.start_until_ready()
    registry.stop(signal.SIGKILL)
    registry.start_until_ready()
    assert registry.ready()
    assert registry.stop(signal.SIGINT) == 0
    assert registry.left() == {}


@pytest.mark.parametrize("words", ["uvicorn", "celery", "embedded.issuer", "postgres -D"])
def test_a_part_that_dies_is_started_again(registry: Registry, words: str) -> None:
    registry.start_until_ready()
    died = registry.pid_of(words)
    os.kill(died, signal.SIGKILL)
    wait_until(lambda: any(words in command and pid != died for pid, command in registry.left().items()))
    wait_until(registry.ready)
    assert "starting it again" in registry.said()


def test_a_port_in_use_is_named(registry: Registry) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, said = registry.refused(REGISTRY_PORT=str(port))
    assert (code, len(said.splitlines())) == (2, 1)
    assert f"Port {port} of 127.0.0.1 is in use" in said


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("REGISTRY_PORT", "http"),
        ("WEB_PROCESSES", "0"),
        ("DATABASE_URL", "mysql://localhost/registry"),
        ("DEBUG", "false"),
        ("REGISTRY_BIND", "203.0.113.1"),
    ],
)
def test_a_wrong_setting_is_one_sentence(registry: Registry, name: str, value: str) -> None:
    code, said = registry.refused(**{name: value})
    assert (code, len(said.splitlines())) == (2, 1)
    assert said.startswith("The registry cannot start: ")


def dying() -> Command:
    return Command("dying", ["-c", "raise SystemExit(3)"], patience_seconds=1)


def test_the_pauses_between_starts_grow() -> None:
    tended = Tended(dying(), shortest_pause_seconds=0.05)
    pauses = []
    while tended.deaths < 4:
        tended.tend()
        pauses.append(tended.pause_seconds)
    assert sorted(set(pauses)) == [0.05, 0.1, 0.2, 0.4, 0.8]


def test_a_part_that_never_gets_up_ends_the_start() -> None:
    supervisor = Supervisor(Plan(None, None, dying(), []), shortest_pause_seconds=0.01)
    supervisor.look_after(supervisor.plan.web)
    with pytest.raises(EmbeddedError, match="dying ended 5 times"):
        supervisor.wait_until_ready()
