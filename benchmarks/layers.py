"""Where the microseconds of one heartbeat go: the layers of a web process, timed around their calls.

Each layer's own time is its whole time less that of the layers it calls. One request at a time, so nothing waits for
another. Started by `python -m benchmarks --profile`, with the environment of its registry.
"""

import io
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial, reduce
from importlib import import_module
from typing import Any

import uvloop

Measure = Callable[..., Any]


class Clock:
    """Own time by layer, in seconds. One request at a time."""

    def __init__(self) -> None:
        self.own: dict[str, float] = defaultdict(float)
        self.stack: list[list[float]] = []

    def around(self, layer: str, call: Measure) -> Measure:
        def timed(*positional: Any, **named: Any) -> Any:
            self.stack.append([0.0])
            began = time.perf_counter()
            try:
                return call(*positional, **named)
            finally:
                whole = time.perf_counter() - began
                self.own[layer] += whole - self.stack.pop()[0]
                if self.stack:
                    self.stack[-1][0] += whole

        return timed


# Outermost first: the layer, the module, and the callable in it that is timed. What is not named belongs to its caller.
HANDLER = "WSGI handler: request, signals, answer"
LAYERS = [
    ("middleware", "registry_project.asgi", "django_application._middleware_chain"),
    ("URL resolver, view call", "django.core.handlers.base", "BaseHandler._get_response"),
    ("DRF: dispatch, request, response", "rest_framework.views", "APIView.dispatch"),
    ("token: header, cache, grants", "service_registry.api.authentication", "BearerAuthentication.authenticate"),
    ("permission", "service_registry.api.permissions", "ActionPermission.has_permission"),
    ("JSON in", "service_registry.api.parser", "StrictJSONParser.parse"),
    ("validation (Pydantic)", "service_registry.api.registration", "one"),
    ("verb: batch, outcome, atomic block", "service_registry.manager", "heartbeat"),
    ("SQL: the beat", "service_registry.manager.heartbeat", "renew"),
    ("SQL: health check (SELECT 1)", "django.db.backends.postgresql.base", "DatabaseWrapper.is_usable"),
    ("SQL: BEGIN, autocommit", "django.db.backends.base.base", "BaseDatabaseWrapper.set_autocommit"),
    ("SQL: COMMIT", "django.db.backends.base.base", "BaseDatabaseWrapper.commit"),
    ("JSON out", "service_registry.api.renderer", "RegistryJSONRenderer.render"),
]


@contextmanager
def timed(clock: Clock) -> Iterator[None]:
    with ExitStack() as stack:
        for layer, module, path in LAYERS:
            *owners, name = path.split(".")
            owner = reduce(getattr, owners, import_module(module))
            before = getattr(owner, name)
            setattr(owner, name, clock.around(layer, before))
            stack.callback(setattr, owner, name, before)
        yield


def environ(token: str, body: bytes) -> dict[str, Any]:
    return {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/registry/heartbeat",
        "QUERY_STRING": "",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "127.0.0.1",
        "HTTP_AUTHORIZATION": f"Bearer {token}",
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
    }


def scope(token: str) -> Any:
    headers = {"host": "127.0.0.1", "authorization": f"Bearer {token}", "content-type": "application/json"}
    return {
        "type": "http",
        "method": "POST",
        "path": "/registry/heartbeat",
        "raw_path": b"/registry/heartbeat",
        "query_string": b"",
        "http_version": "1.1",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }


def direct(application: Any, token: str, body: bytes) -> None:
    """One request, as the bridge's thread runs it."""
    statuses: list[str] = []
    answer = application(environ(token, body), lambda status, _headers, _error=None: statuses.append(status))
    answer.close()
    if statuses != ["200 OK"]:
        raise RuntimeError(f"a heartbeat was answered {statuses}")


async def bridged(bridge: Any, token: str, body: bytes, count: int) -> float:
    """Seconds a request through the bridge, from the event loop to a thread and back."""

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(_message: Any) -> None:
        return None

    began = time.perf_counter()
    for _ in range(count):
        await bridge(scope(token), receive, send)
    return (time.perf_counter() - began) / count


def rate(run: Callable[[], None], count: int) -> float:
    """Seconds a run."""
    began = time.perf_counter()
    for _ in range(count):
        run()
    return (time.perf_counter() - began) / count


def main(rounds: int = 8, count: int = 250) -> None:
    """Turn about, and of each the best round: what else runs on the machine only ever adds."""
    asgi = import_module("registry_project.asgi")
    asgi.bridge.threads = ThreadPoolExecutor(1)
    token, body = os.environ["BENCH_TOKEN"], os.environ["BENCH_BODY"].encode()
    heartbeat = partial(direct, asgi.django_application, token, body)
    plain, through, clocks = [], [], []
    for _ in range(rounds):
        plain.append(rate(heartbeat, count))
        through.append(uvloop.run(bridged(asgi.bridge, token, body, count)))
        clock = Clock()
        with timed(clock):
            rate(clock.around(HANDLER, heartbeat), count)
        clocks.append(clock)
    show(min(clocks, key=lambda clock: sum(clock.own.values())), count, min(plain), min(through))


def show(clock: Clock, count: int, plain: float, through: float) -> None:
    total = sum(clock.own.values()) / count
    print("| layer | us | share |\n|---|---:|---:|")
    print(f"| bridge: environ, hop to a thread and back | {(through - plain) * 1e6:.0f} | |")
    for layer, seconds in sorted(clock.own.items(), key=lambda item: -item[1]):
        print(f"| {layer} | {seconds / count * 1e6:.0f} | {seconds / count / total:.0%} |")
    print(f"| all below the bridge | {total * 1e6:.0f} | 100% |")
    print(f"| the same without the timers | {plain * 1e6:.0f} | |")


if __name__ == "__main__":
    main()
