"""kill -9 under load: no acknowledged registration is lost, and no change id is assigned twice.

When PostgreSQL is killed, the web process goes on: it recovers by itself.
"""

import http.client
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.client import registration
from tests.server.registry import Registry
from tests.waiting import wait_for

KILLS = 4
WRITERS = 4


class Load:
    """Threads that register new instances one after another, and record which were acknowledged."""

    def __init__(self, registry: Registry, prefix: str) -> None:
        self.registry = registry
        self.prefix = prefix
        self.acknowledged: list[str] = []
        self.refused: Counter[tuple[int, str]] = Counter()
        self.stopped = threading.Event()
        self.threads = [threading.Thread(target=self.write, args=(writer,)) for writer in range(WRITERS)]

    def __enter__(self) -> "Load":
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stopped.set()
        for thread in self.threads:
            thread.join()

    def write(self, writer: int) -> None:
        caller = self.registry.caller("registry-services", "team")
        for number in range(100_000):
            if self.stopped.is_set():
                return
            instance_id = f"{self.prefix}-{writer}-{number}"
            try:
                body = registration(f"load-{writer}", instance_id, ttl_seconds=3600)
                reply = caller.call("POST", "/registry/register", body)
            except (OSError, http.client.HTTPException):
                time.sleep(0.02)
                continue
            if reply.status == 201:
                self.acknowledged.append(instance_id)
            else:
                self.refused[reply.status, reply.headers.get("retry-after", "never")] += 1
                time.sleep(0.05)

    def has_acknowledged(self, more: int) -> Callable[[], bool]:
        wanted = len(self.acknowledged) + more
        return lambda: len(self.acknowledged) >= wanted


def read_changes(registry: Registry) -> dict[int, str]:
    return dict(registry.sql("SELECT id, mark FROM service_registry_change"))


@pytest.mark.parametrize("victim", ["web", "postgres", "backend"])
def test_acknowledged_registrations_survive_kills(tmp_path: Path, victim: str) -> None:
    with Registry(tmp_path) as registry:
        kill = {"web": registry.kill_web, "postgres": registry.kill_postgres, "backend": registry.kill_backend}[victim]
        first_web = registry.web[0].pid
        seen: dict[int, str] = {}
        with Load(registry, victim) as load:
            for _ in range(KILLS):
                wait_for(load.has_acknowledged(30))
                seen |= read_changes(registry)
                kill()
                wait_for(load.has_acknowledged(5))
        kept = {row[0] for row in registry.sql("SELECT instance_id FROM service_registry_instance")}
        missing = set(load.acknowledged) - kept
        after = read_changes(registry)
        print(
            f"{KILLS} x kill -9 of {victim}: {len(load.acknowledged)} acknowledged, {len(missing)} missing, "
            f"{load.refused.total()} refused {dict(load.refused)}, {len(seen)} ids seen before a kill"
        )
        assert not missing
        assert set(load.refused) <= {(503, "1")}
        assert victim == "web" or registry.web[0].pid == first_web
        assert {number for number, mark in seen.items() if after.get(number) != mark} == set()
