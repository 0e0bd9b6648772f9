"""Count the files and functions of the product that a request runs through: `python -m benchmarks.call_path`.

It runs the ASGI application in this process, sends each kind of request a few times, and then traces one of it: up to
the first SQL statement, and to its end. `--checkout` traces another checkout with the same requests.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

PRODUCT = ("service_registry", "registry_project")
# Threads that run whatever is requested.
BACKGROUND = ("feed", "keys", "oidc")
BACKGROUND_FILES = ("pulse.py", "pulsing.py", "observation_window.py", "observation.py", "hearing.py")
SERVICE, WARM_UP = "traced", 3
INSTANCE = {"service_name": SERVICE, "instance_id": "i-1", "host": "10.0.0.1", "port": 80}
KEY = {"service_name": SERVICE, "instance_id": "i-1"}


class Kind(NamedTuple):
    """A kind of request, and the status of its answer."""

    name: str
    method: str
    path: str
    body: bytes
    status: int


KINDS = (
    Kind("register, new", "POST", "/registry/register", json.dumps(INSTANCE | {"instance_id": "new"}).encode(), 201),
    Kind("heartbeat", "POST", "/registry/heartbeat", json.dumps(KEY).encode(), 200),
    Kind("heartbeat, malformed", "POST", "/registry/heartbeat", b'{"service_name": 1}', 400),
    Kind("discovery", "GET", f"/registry/services/{SERVICE}", b"", 200),
    Kind("list", "GET", "/registry/services", b"", 200),
    Kind("watch, poll", "GET", "/registry/watch", b"", 200),
)


class CallPath(NamedTuple):
    """A traced path: calls of product functions, in order."""

    calls: list[tuple[str, str]]

    def summary(self) -> str:
        files = len({file for file, _ in self.calls})
        changes = sum(first[0] != second[0] for first, second in pairwise(self.calls))
        return f"{files:6} {len(set(self.calls)):10} {len(self.calls):6} {changes:13}"


class Tracer:
    """A profile function for all threads. Records calls while `recording`, and where the first statement was."""

    def __init__(self, root: Path) -> None:
        self.prefixes = tuple(str(root / name) for name in PRODUCT)
        self.root = str(root)
        self.recording = False
        self.calls: list[tuple[str, str]] = []
        self.sql_at: int | None = None

    def start(self) -> None:
        self.calls, self.sql_at, self.recording = [], None, True
        sys.setprofile(self)

    def stop(self) -> None:
        sys.setprofile(None)
        self.recording = False

    def __call__(self, frame: FrameType, event: str, _argument: object) -> None:
        if not self.recording or event != "call" or threading.current_thread().name.startswith(BACKGROUND):
            return
        name = frame.f_code.co_filename
        if name.startswith(self.prefixes) and not name.endswith(BACKGROUND_FILES):
            self.calls.append((name.removeprefix(self.root), frame.f_code.co_qualname))
        elif self.sql_at is None and frame.f_code.co_name == "execute" and "/psycopg/" in name and not is_pulse(frame):
            self.sql_at = len(self.calls)


def is_pulse(frame: FrameType | None) -> bool:
    """Return whether a statement belongs to the pulse, which shares the threads of requests."""
    while frame is not None:
        if frame.f_code.co_filename.endswith(BACKGROUND_FILES):
            return True
        frame = frame.f_back
    return False


async def call(application: Any, kind: Kind, token: str) -> int:
    """Return the status of one request."""
    headers = {"host": "127.0.0.1", "authorization": f"Bearer {token}", "content-type": "application/json"}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "http",
        "root_path": "",
        "method": kind.method,
        "path": kind.path,
        "raw_path": kind.path.encode(),
        "query_string": b"",
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "state": {},
        "extensions": None,
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    messages = [{"type": "http.request", "body": kind.body, "more_body": False}]
    sent: list[Any] = []
    finished = asyncio.Event()

    async def receive() -> Any:
        if not messages:
            await finished.wait()
        return messages.pop() if messages else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await application(scope, receive, send)
    finished.set()
    return int(sent[0]["status"])


async def trace(token: str) -> None:
    """Start the application as a server does, and print a line for each kind of request."""
    root = Path.cwd()
    sys.path[0] = str(root)  # not this file's directory, whose modules have names of libraries
    tracer = Tracer(root)
    threading.setprofile(tracer)
    from registry_project.asgi import application  # noqa: PLC0415 - of the checkout, with the profile function in place

    events: asyncio.Queue[Any] = asyncio.Queue()
    started = asyncio.Event()

    async def note_started(_message: Any) -> None:
        started.set()

    scope: Any = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    lifespan = asyncio.create_task(application(scope, events.get, note_started))
    await events.put({"type": "lifespan.startup"})
    await started.wait()
    first = Kind("register", "POST", "/registry/register", json.dumps(INSTANCE).encode(), 201)
    while await call(application, first, token) not in {200, 201}:
        await asyncio.sleep(0.2)  # until keys and replica are loaded
    print(f"{'':22} {'to the first SQL statement, or the response':^38}   {'to the end':^38}")
    print(f"{'':22} " + "   ".join(["  files  functions  calls  file changes"] * 2))
    for kind in KINDS:
        if kind.status == 200:
            for _ in range(WARM_UP):
                await call(application, kind, token)
        await asyncio.sleep(1)  # the feed reads what was written
        tracer.start()
        status = await call(application, kind, token)
        tracer.stop()
        if status != kind.status:
            raise SystemExit(f"{kind.name}: {status} instead of {kind.status}")
        print(
            f"{kind.name:22} {CallPath(tracer.calls[: tracer.sql_at]).summary()}   {CallPath(tracer.calls).summary()}"
        )
    await events.put({"type": "lifespan.shutdown"})
    await lifespan


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.call_path", description=__doc__)
    parser.add_argument("--checkout", type=Path, default=Path(__file__).parents[1], help="the code that is traced")
    options = parser.parse_args()
    # The traced process must not import this checkout.
    from benchmarks.registry import Registry  # noqa: PLC0415
    from benchmarks.requests import Fleet  # noqa: PLC0415

    with tempfile.TemporaryDirectory(prefix="call-path-") as directory:
        Path(directory).chmod(0o755)
        with Registry(Path(directory) / "registry", Fleet(), options.checkout) as registry:
            variables = registry.environment | {"TRACE_TOKEN": registry.issue_token("team")}
            script = [registry.python, str(Path(__file__).resolve())]
            subprocess.run(script, cwd=registry.checkout, env=variables, check=True, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    if token := os.environ.pop("TRACE_TOKEN", ""):
        asyncio.run(trace(token))
    else:
        main()
