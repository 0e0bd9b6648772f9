"""The examples of docs/watching.md, run unchanged."""

import os
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from service_registry.asgi.limits import SUBSCRIBERS_PER_PROCESS
from tests.client import registration, token
from tests.server.event_stream import EventStream
from tests.server.registry import ROOT, Registry
from tests.waiting import wait_for

EXAMPLES = ROOT / "docs" / "examples"
# As after a restore: no index is known, and the instances are lost.
REPLACE_LOG = """
DELETE FROM service_registry_lease; DELETE FROM service_registry_instance;
UPDATE service_registry_change SET mark = '{}'
"""


@pytest.fixture
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("examples"), variables={"REGISTRY_MAX_SHARE_PER_CALLER": "0.01"}) as running:
        yield running


@contextmanager
def python_example(port: int, output: Path, bearer: str = "") -> Iterator[Path]:
    """Run the example in Python. Gives the file that it reads its token from."""
    kept = output.with_name("kept-token")
    kept.write_text(bearer or token("registry-readers"))
    with running_example(port, output, sys.executable, str(EXAMPLES / "watch.py"), TOKEN_FILE=str(kept)):
        yield kept


@contextmanager
def running_example(port: int, output: Path, *command: str, **variables: str) -> Iterator[None]:
    variables["REGISTRY"] = f"http://127.0.0.1:{port}"
    with output.open("wb") as printed:
        process = subprocess.Popen(
            command, env=os.environ | variables, stdout=printed, stderr=printed, start_new_session=True
        )
        try:
            yield
        finally:
            os.killpg(process.pid, 9)
            process.wait()


def test_python_example_keeps_a_copy(registry: Registry, tmp_path: Path) -> None:
    """Also after the web process was killed."""
    team = registry.caller("registry-services", "team")
    output = tmp_path / "output"
    for number in range(3):
        team.register("python", f"i-{number}")
    with python_example(registry.ports[0], output):
        wait_for(lambda: team.register("python", "i-3", weight=int(time.time()) % 60_000) and output.read_text())
        assert "updated python i-3 4" in output.read_text() or "registered python i-3 4" in output.read_text()
        registry.kill_web()
        team = registry.caller("registry-services", "team")
        team.register("python", "i-4")
        team.call("POST", "/registry/deregister", {"service_name": "python", "instance_id": "i-0"})
        wait_for(lambda: output.read_text().endswith("registered python i-4 5\nderegistered python i-0 4\n"))


def test_python_example_whose_index_is_lost_lists_again(registry: Registry, tmp_path: Path) -> None:
    """In an open stream, and when it resumes. Instances that were lost without a change leave its copy."""
    team, output = registry.caller("registry-services", "team"), tmp_path / "output"

    def has_printed(last: str, instance_id: str) -> bool:
        team.register("lost", instance_id, weight=int(time.time()) % 60_000)
        return output.read_text().endswith(last)

    with python_example(registry.ports[0], output):
        wait_for(lambda: has_printed("lost a 1\n", "a"))
        registry.execute(REPLACE_LOG.format("aaaaaaaa"))
        wait_for(lambda: has_printed("lost b 1\n", "b"))
        assert "410" not in output.read_text()
        registry.web[0].kill()
        registry.web[0].wait()
        registry.execute(REPLACE_LOG.format("bbbbbbbb"))
        registry.kill_web()
        team = registry.caller("registry-services", "team")
        wait_for(lambda: has_printed("lost c 1\n", "c"))
        assert "410" in output.read_text()


def test_python_example_whose_token_expired_continues_with_a_new_one(registry: Registry, tmp_path: Path) -> None:
    """Tokens are accepted for 30 s after their end, as the issuer's clock may differ."""
    team = registry.caller("registry-services", "team")
    output = tmp_path / "output"
    with python_example(registry.ports[0], output, token("registry-readers", ttl_seconds=-24)) as kept:
        wait_for(lambda: team.register("renewed", weight=int(time.time()) % 60_000) and output.read_text())
        wait_for(lambda: "401" in output.read_text())
        team = registry.caller("registry-services", "team")
        team.register("renewed", "meanwhile")
        kept.write_text(token("registry-readers"))
        wait_for(lambda: "registered renewed meanwhile 2" in output.read_text())


class Relay(socketserver.ThreadingTCPServer):
    """A proxy between a client and the registry, which drops the end of the first response."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), RelayHandler)
        self.port = port
        self.requests: list[tuple[bytes, float]] = []  # the request line of each connection, and its time

    @property
    def watches(self) -> list[float]:
        return [at for line, at in self.requests if b"/registry/watch" in line]


class RelayHandler(socketserver.BaseRequestHandler):
    server: Relay

    def handle(self) -> None:
        request = self.request.recv(65536)
        self.server.requests.append((request.partition(b"\r\n")[0], time.monotonic()))
        is_first = len(self.server.requests) == 1
        with socket.create_connection(("127.0.0.1", self.server.port)) as registry:
            registry.sendall(request)
            if is_first:
                self.request.sendall(b"".join(iter(lambda: registry.recv(65536), b""))[:-1])
                return
            with suppress(OSError):
                while answer := registry.recv(65536):
                    self.request.sendall(answer)


@contextmanager
def relay(registry: Registry) -> Iterator[Relay]:
    with Relay(registry.ports[0]) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_python_example_survives_a_broken_response_and_honours_retry_after(registry: Registry, tmp_path: Path) -> None:
    team = registry.caller("registry-services", "team")
    bearer, output = token("registry-readers", subject="many-watches"), tmp_path / "output"
    with ExitStack() as others, relay(registry) as server:
        for _ in range(SUBSCRIBERS_PER_PROCESS // 100):
            others.enter_context(EventStream(registry.ports[0], bearer))
        with python_example(server.server_address[1], output, bearer):
            wait_for(lambda: len(server.watches) >= 2)
            first, second = server.watches[:2]
            assert second - first >= 5, "Retry-After says 5 s"
            others.close()
            wait_for(lambda: team.register("broken", weight=int(time.time()) % 60_000) and output.read_text())
    assert "Traceback" not in output.read_text()


def test_shell_example_prints_addresses(registry: Registry, tmp_path: Path) -> None:
    team = registry.caller("registry-services", "team")
    output = tmp_path / "output"
    team.call("POST", "/registry/register", registration("shell", "a", port=1001))
    bearer = token("registry-readers")
    with running_example(registry.ports[0], output, "sh", str(EXAMPLES / "watch.sh"), "shell", TOKEN=bearer):
        wait_for(lambda: output.read_text().rstrip().endswith(": http://10.0.0.1:1001"))
        team.call("POST", "/registry/register", registration("shell", "b", port=1002))
        wait_for(lambda: output.read_text().rstrip().endswith(": http://10.0.0.1:1001 http://10.0.0.1:1002"))
    assert len(output.read_text().splitlines()) == 2
