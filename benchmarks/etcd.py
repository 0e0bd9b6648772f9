"""etcd beside the registry: the same kinds of requests through its JSON gateway, by the same client.

The paths are those of etcd 3.4 and newer (https://etcd.io/docs/v3.5/dev-guide/api_grpc_gateway/). Every write is
durable there too. A new registration is two requests: a lease is granted, and the key is put with it.
"""

import base64
import itertools
import json
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from benchmarks import cpu
from benchmarks.client import LoadResult, generate_load
from benchmarks.requests import INSTANCES_PER_SERVICE, TTL_SECONDS, Fleet, RequestKind, exchange, make_registration
from registry_project.devstack import processes

READY_SECONDS = 30
# Requests for one instance, where it is not one.
REQUESTS_EACH = {"register (new)": 2}


class Etcd:
    """An etcd server with a fleet, started by `with`.

    Arguments:
        directory: for its data; made when missing.
    """

    def __init__(self, directory: Path, fleet: Fleet) -> None:
        program = shutil.which("etcd")
        if program is None:
            raise SystemExit("etcd was not found: apt-get install etcd-server (Debian, Ubuntu).")
        self.program = program
        self.directory = directory
        self.fleet = fleet
        self.port = processes.free_port()
        self.leases: list[str] = []

    def __enter__(self) -> Self:
        url, peer = f"http://127.0.0.1:{self.port}", f"http://127.0.0.1:{processes.free_port()}"
        self.process = subprocess.Popen(
            [
                *(self.program, "--data-dir", self.directory, "--log-level", "error", "--name", "bench"),
                *("--listen-client-urls", url, "--advertise-client-urls", url),
                *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
                *("--initial-cluster", f"bench={peer}"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.wait_until_ready()
        self.register_fleet()
        return self

    def __exit__(self, *_error: object) -> None:
        processes.stop(self.process, signal.SIGTERM, 10)

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while True:
            try:
                exchange(self.port, post("/v3/kv/range", {"key": encode("none")}))
            except OSError:
                if time.monotonic() > deadline:
                    raise SystemExit("etcd was not ready in time.") from None
                time.sleep(0.1)
            else:
                return

    def register_fleet(self) -> None:
        self.leases = [self.grant_lease() for _ in range(self.fleet.instances)]
        for number, lease in enumerate(self.leases):
            exchange(self.port, put(number, lease))

    def grant_lease(self) -> str:
        _status, _headers, body = exchange(self.port, post("/v3/lease/grant", {"TTL": TTL_SECONDS}))
        return str(json.loads(body)["ID"])

    def kinds(self) -> list[RequestKind]:
        """The kinds by the names of the registry's."""
        return [
            RequestKind("register (new)", 200, self.registrations),
            RequestKind("register (again)", 200, self.puts),
            RequestKind("heartbeat", 200, self.heartbeats),
            RequestKind(f"discovery ({INSTANCES_PER_SERVICE} instances)", 200, self.discoveries),
        ]

    def registrations(self) -> Iterator[bytes]:
        """Alternate between a new lease, and a new key under a lease."""
        for number in itertools.count(self.fleet.instances):
            yield post("/v3/lease/grant", {"TTL": TTL_SECONDS})
            yield put(number, random.choice(self.leases))

    def puts(self) -> Iterator[bytes]:
        while True:
            number = random.randrange(self.fleet.instances)
            yield put(number, self.leases[number])

    def heartbeats(self) -> Iterator[bytes]:
        while True:
            yield post("/v3/lease/keepalive", {"ID": random.choice(self.leases)})

    def discoveries(self) -> Iterator[bytes]:
        while True:
            prefix = f"service-{random.randrange(self.fleet.services)}/"
            end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
            yield post("/v3/kv/range", {"key": encode(prefix), "range_end": encode(end)})

    def measure(self, kind: RequestKind, connections: int, seconds: float) -> tuple[LoadResult, float]:
        """Return the load's result, and etcd's CPU microseconds for each instance."""
        before = cpu.read_cpu_seconds([self.process.pid])
        load = generate_load([self.port], connections, seconds, kind.status, kind.make_requests)
        spent = cpu.read_cpu_seconds([self.process.pid]) - before
        return load, spent / len(load.latencies) * REQUESTS_EACH.get(kind.name, 1) * 1e6


def put(number: int, lease: str) -> bytes:
    registration = make_registration(number)
    key = f"{registration['service_name']}/{registration['instance_id']}"
    return post("/v3/kv/put", {"key": encode(key), "value": encode(json.dumps(registration)), "lease": lease})


def encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def post(path: str, body: dict[str, Any]) -> bytes:
    content = json.dumps(body).encode()
    return f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content
