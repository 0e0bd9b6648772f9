"""`python -m benchmarks.health_checks`: measure delay and cost of health checks, and how soon discovery follows.

A process beside the registry listens on 500 loopback addresses for 2,000 instances, four on each: one of the four never
answers, or sends a byte at a time. Then the servers of 20 instances stop, and start again.
"""

import argparse
import asyncio
import json
import math
import multiprocessing
import os
import re
import resource
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

from benchmarks import cpu
from benchmarks.registry import Registry
from benchmarks.requests import Fleet
from registry_project.devstack import processes

INSTANCES, PER_HOST, VICTIMS = 2000, 4, 20
INTERVAL_SECONDS, UNHEALTHY_AFTER, HEALTHY_AFTER = 10, 3, 2
HOSTS = [f"127.1.{number // 250}.{number % 250 + 1}" for number in range(INSTANCES // PER_HOST)]
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
DRIP_SECONDS = 0.2
# What is late by this much for a service is the registry's own delay.
ALLOWED_SECONDS = 2


class Answering(asyncio.Protocol):
    """A target that answers each request."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, _data: bytes) -> None:
        self.transport.write(ANSWER)
        self.transport.close()


class Hanging(Answering):
    """A target that answers nothing."""

    def data_received(self, _data: bytes) -> None:
        """Answer nothing."""


class Dripping(Answering):
    """A target that sends a head without an end, byte by byte."""

    def data_received(self, _data: bytes) -> None:
        self.transport.write(b"HTTP/1.1 200 OK\r\nX: ")
        self.drip()

    def drip(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(b"x")
            asyncio.get_running_loop().call_later(DRIP_SECONDS, self.drip)


@dataclass(frozen=True)
class Ports:
    """The ports of the targets, on each of HOSTS, by what they do; those of `victims` stop and start."""

    answering: int
    hanging: int
    dripping: int
    victims: int


def serve_targets(ports: Ports, commands: Connection) -> None:
    """Run all targets in this process. Each command stops or starts the victims; the answer says that it has."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (8192, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    asyncio.run(serve(ports, commands))


async def serve(ports: Ports, commands: Connection) -> None:
    loop = asyncio.get_running_loop()
    for port, kind in ((ports.answering, Answering), (ports.hanging, Hanging), (ports.dripping, Dripping)):
        await loop.create_server(kind, HOSTS, port, backlog=16)
    while True:
        victims = await loop.create_server(Answering, HOSTS[:VICTIMS], ports.victims)
        commands.send("started")
        await loop.run_in_executor(None, commands.recv)
        victims.close()
        commands.send("stopped")
        await loop.run_in_executor(None, commands.recv)


@contextmanager
def running_targets(ports: Ports) -> Iterator[Connection]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve_targets, args=(ports, theirs), daemon=True)
    process.start()
    try:
        ours.recv()
        yield ours
    finally:
        process.kill()
        process.join()


def make_items(ports: Ports) -> Iterator[dict[str, Any]]:
    """Yield the registrations of all instances: the last of each host hangs or drips."""
    for number in range(INSTANCES):
        host, place = divmod(number, PER_HOST)
        port = ports.answering
        if place == PER_HOST - 1:
            port = ports.hanging if host % 2 else ports.dripping
        elif place == 0 and host < VICTIMS:
            port = ports.victims
        yield {
            "service_name": "victims" if port == ports.victims else f"web-{number // 10}",
            "instance_id": f"i-{number}",
            "host": HOSTS[host],
            "port": port,
            "ttl_seconds": 3600,
            "health_check": {
                "type": "http",
                "path": "/health",
                "interval_seconds": INTERVAL_SECONDS,
                "unhealthy_after": UNHEALTHY_AFTER,
                "healthy_after": HEALTHY_AFTER,
            },
        }


class Caller:
    """Calls a web process of the registry with a token."""

    def __init__(self, port: int, token: str) -> None:
        self.url, self.headers = f"http://127.0.0.1:{port}", {"Authorization": f"Bearer {token}"}

    def call(self, path: str, body: Any = None) -> bytes:
        headers = self.headers | {"Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers)
        with urllib.request.urlopen(request, timeout=30) as response:
            return bytes(response.read())

    def count_victims(self) -> int:
        return len(json.loads(self.call("/registry/services/victims"))["instances"])

    def read_metrics(self) -> dict[str, float]:
        lines = [line for line in self.call("/metrics").decode().splitlines() if line.startswith("registry_health")]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def wait_until(condition: Callable[[], bool]) -> float:
    """Wait until a condition holds, and return the seconds."""
    began = time.monotonic()
    while not condition():
        time.sleep(0.1)
    return time.monotonic() - began


def quantile(before: dict[str, float], after: dict[str, float], share: float) -> float:
    """Return the bound of the histogram's bucket that has the share of the delays between two scrapes."""
    prefix = "registry_health_check_delay_seconds_bucket"
    found = {
        float(re.sub(r'.*le="([^"]+)".*', r"\1", name)): value - before.get(name, 0)
        for name, value in after.items()
        if name.startswith(prefix)
    }
    total = found[math.inf]
    return min(bound for bound, count in found.items() if count >= share * total)


def total(metrics: dict[str, float], name: str) -> float:
    return sum(value for series, value in metrics.items() if series.partition("{")[0] == name)


def measure(registry: Registry, caller: Caller, commands: Connection, checker: int) -> None:
    known = "registry_health_checks_total"
    wait_until(lambda: total(caller.read_metrics(), known) >= 1.5 * INSTANCES)
    before, began = caller.read_metrics(), time.monotonic()
    roots = ([checker], [registry.postgres.postmaster_pid or 0])
    cpu_before = [cpu.read_cpu_seconds(each) for each in roots]
    commands.send("stop")
    commands.recv()
    out = wait_until(lambda: caller.count_victims() == 0)
    commands.send("start")
    commands.recv()
    back = wait_until(lambda: caller.count_victims() == VICTIMS)
    after, seconds = caller.read_metrics(), time.monotonic() - began
    checks = total(after, known) - total(before, known)
    checker_us, postgres_us = (
        1e6 * (cpu.read_cpu_seconds(each) - earlier) / checks for each, earlier in zip(roots, cpu_before, strict=True)
    )
    late = total(after, "registry_health_checks_late_total") - total(before, "registry_health_checks_late_total")
    failed = sum(value for name, value in after.items() if name.startswith(known) and 'cause="timeout"' in name)
    p50, p99 = (quantile(before, after, share) for share in (0.5, 0.99))
    print(f"{checks:.0f} checks of {INSTANCES} instances in {seconds:.0f} s, {checks / seconds:.0f}/s; {late:.0f} late")
    print(f"{failed:.0f} timeouts in all, of {INSTANCES // PER_HOST} instances that hang or drip")
    print(f"due to run: p50 at most {p50:g} s, p99 at most {p99:g} s")
    print(f"CPU of a check: checker {checker_us:.0f} us, PostgreSQL {postgres_us:.0f} us")
    limits = (UNHEALTHY_AFTER * INTERVAL_SECONDS + ALLOWED_SECONDS, HEALTHY_AFTER * INTERVAL_SECONDS + ALLOWED_SECONDS)
    print(f"{VICTIMS} stopped servers out of discovery after {out:.1f} s (limit {limits[0]} s)")
    print(f"and back {back:.1f} s after their start (limit {limits[1]} s)")


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    ports = Ports(*(processes.free_port() for _ in range(4)))
    with tempfile.TemporaryDirectory() as directory:
        metrics = Path(directory) / "metrics"
        metrics.mkdir()
        os.environ.update(
            REGISTRY_HEALTH_NETWORKS="127.0.0.0/8",
            REGISTRY_METRICS_PUBLIC="true",
            PROMETHEUS_MULTIPROC_DIR=str(metrics),
        )
        with running_targets(ports) as commands, Registry(Path(directory) / "registry", Fleet(500)) as registry:
            registry.start_web(1, 2)
            caller = Caller(registry.ports[0], registry.issue_token("team-0"))
            items = list(make_items(ports))
            for at in range(0, INSTANCES, 500):
                caller.call("/registry/register", items[at : at + 500])
            checker = registry.start("manage.py", "check_health")
            measure(registry, caller, commands, checker.pid)


if __name__ == "__main__":
    main()
