"""`make run` with real processes: start, restarts, refusals, stop."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry_project.devstack import DevstackError, processes
from registry_project.devstack.components import Command, Supervised
from registry_project.devstack.plan import Plan
from registry_project.devstack.supervisor import Supervisor
from tests.waiting import wait_for

CHECKOUT = Path(__file__).resolve().parents[2]
# The machine runs other tests at the same time.
TIMEOUT_SECONDS = 60
# Variables of the test run that these registries must not inherit.
OF_THE_TEST_RUN = ("DATABASE_URL", "OIDC_ISSUER", "SECRET_KEY", "DJANGO_SETTINGS_MODULE", "CELERY_BROKER_URL")


class Registry:
    """Starts `make run` again and again on one data directory and one pair of ports."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "data"
        self.output = directory / "output"
        self.port = processes.free_port()
        kept = {name: value for name, value in os.environ.items() if name not in OF_THE_TEST_RUN}
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

    def start_until_ready(self) -> None:
        process = self.start()
        wait_for(lambda: "Press Ctrl-C to stop" in self.printed() or process.poll() is not None)
        assert process.poll() is None, self.printed()

    def start_and_fail(self, **variables: str) -> tuple[int, str]:
        """Return exit code and output of a start that must fail."""
        return self.start(**variables).wait(TIMEOUT_SECONDS), self.printed()

    def stop(self, how: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(how)
        return self.process.wait(TIMEOUT_SECONDS)

    def stop_all(self) -> None:
        """Stop the registry if it runs, and kill what is left of it."""
        if self.is_running():
            self.stop(signal.SIGTERM)
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)

    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def printed(self) -> str:
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
        """Run a command in a second shell and return its output."""
        return subprocess.run(
            command, shell=True, cwd=CHECKOUT, env=self.variables, capture_output=True, text=True, check=True
        ).stdout

    def processes(self) -> dict[int, str]:
        """Return the processes with this registry's data directory in their environment."""
        mark = f"REGISTRY_DATA_DIR={self.directory}\0".encode()
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (process / "environ").read_bytes():
                    found[int(process.name)] = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue  # it has exited, or belongs to another user
        return found

    def pid_of(self, text: str) -> int:
        return next(pid for pid, command in self.processes().items() if text in command)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    registry = Registry(tmp_path_factory.mktemp("registry"))
    yield registry
    registry.stop_all()


@pytest.fixture
def running(shared: Registry) -> Registry:
    """Return a running registry, which the test may stop.

    All tests share its data, since only the first start creates a database.
    """
    if not shared.is_running():
        shared.start_until_ready()
    wait_for(shared.ready)
    return shared


def test_printed_example_works_and_no_process_is_left_after_sigterm(running: Registry) -> None:
    curl = re.search(r"^curl .*?; echo$", running.printed(), re.MULTILINE | re.DOTALL)
    assert curl is not None
    assert json.loads(running.shell(curl[0]))["instance_id"] == "payments-1"
    assert running.stop(signal.SIGTERM) == 0
    assert running.processes() == {}
    assert not (running.directory / "environment").exists()


def test_environment_file_is_private_and_serves_a_second_shell(running: Registry) -> None:
    assert (running.directory / "environment").stat().st_mode & 0o777 == 0o600
    assert "[X]" in running.shell(f'"{sys.executable}" manage.py showmigrations service_registry')


# Calls the application as a WSGI server does, until it is ready.
WSGI = """
import threading, time
from wsgiref.util import setup_testing_defaults
from registry_project import env
env.load_environment_file()
from registry_project.wsgi import application

def status():
    statuses, environ = [], {"PATH_INFO": "/readyz"}
    setup_testing_defaults(environ)
    response = application(environ, lambda status, headers, exc_info=None: statuses.append(status))
    response.close()
    return statuses[0]

while status() != "200 OK":
    time.sleep(0.1)
print(sorted(thread.name for thread in threading.enumerate() if thread.name == "pulse"))
"""


def test_wsgi_application_serves_and_pulses(running: Registry) -> None:
    assert running.shell(f"'{sys.executable}' -c '{WSGI}'") == "['pulse']\n"


def test_second_start_on_the_same_data_is_refused(running: Registry) -> None:
    second = Registry(running.directory.parent)
    second.output = second.output.with_name("second")
    code, printed = second.start_and_fail()
    assert (code, len(printed.splitlines())) == (2, 1)
    assert "is running with the data in" in printed
    assert running.ready()


def test_start_after_kill_9_works(running: Registry) -> None:
    running.stop(signal.SIGKILL)
    running.start_until_ready()
    assert running.ready()
    assert running.stop(signal.SIGINT) == 0
    assert running.processes() == {}


@pytest.mark.parametrize("text", ["uvicorn", "celery", "devstack.issuer", "postgres -D"])
def test_killed_component_is_restarted(running: Registry, text: str) -> None:
    restarts = running.printed().count("restarting it")
    died = running.pid_of(text)
    os.kill(died, signal.SIGKILL)
    wait_for(lambda: any(text in command and pid != died for pid, command in running.processes().items()))
    wait_for(running.ready)
    assert running.printed().count("restarting it") > restarts


def test_start_on_a_port_in_use_is_refused(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, printed = Registry(tmp_path).start_and_fail(REGISTRY_PORT=str(port))
    assert (code, len(printed.splitlines())) == (2, 1)
    assert f"Port {port} of 127.0.0.1 is in use" in printed


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
def test_start_with_a_wrong_setting_prints_one_sentence(tmp_path: Path, name: str, value: str) -> None:
    code, printed = Registry(tmp_path).start_and_fail(**{name: value})
    assert (code, len(printed.splitlines())) == (2, 1)
    assert printed.startswith("The registry cannot start: ")


def failing_command() -> Command:
    return Command("failing", ["-c", "raise SystemExit(3)"], timeout_seconds=1)


def test_pauses_between_restarts_double() -> None:
    supervised = Supervised(failing_command(), first_pause_seconds=0.05)
    pauses = []
    while supervised.deaths < 4:
        supervised.check()
        pauses.append(supervised.pause_seconds)
    assert sorted(set(pauses)) == [0.05, 0.1, 0.2, 0.4, 0.8]


def test_component_that_always_dies_ends_the_start() -> None:
    supervisor = Supervisor(Plan("http://127.0.0.1:9", None, None, failing_command(), []), first_pause_seconds=0.01)
    supervisor.supervise(supervisor.plan.web)
    with pytest.raises(DevstackError, match="failing exited 5 times"):
        supervisor.wait_until_ready()
