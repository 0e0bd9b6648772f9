"""Processes that call the operations directly, with random delays inside their transactions.

    python -m tests.watch_consistency.writers SEED COUNT SINGLES ARRAYS [FAULT]

Each makes about SINGLES single changes and ARRAYS in arrays of 50, in services that all of them share. They are forked
from a process that has loaded the code, which takes longer than a short run.
"""

import multiprocessing
import os
import random
import sys
import time
from collections.abc import Callable
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "registry_project.settings")
django.setup()

from django.db import transaction  # noqa: E402

from service_registry import manager  # noqa: E402
from service_registry.caller import Caller  # noqa: E402
from service_registry.changelog import append  # noqa: E402
from service_registry.database.transactions import with_retries  # noqa: E402
from service_registry.exceptions import RegistryError  # noqa: E402
from service_registry.schemas import Deregistration, Heartbeat, Registration  # noqa: E402

SERVICES = [f"shared-{number}" for number in range(10)]
ARRAY = 50
# Per writer and service: 4,000 in all make a list of several pages, and change often.
NAMES = 50
PERMISSIONS = frozenset({"register_instance", "heartbeat_instance", "deregister_instance"})
WRITER = Caller("writer", frozenset({"team"}), PERMISSIONS)
WITHOUT_LOCK = "SELECT %s::bigint, set_config('synchronous_commit', 'on', true)"


class Writer:
    def __init__(self, seed: int, number: int) -> None:
        self.random = random.Random(f"{seed} {number}")
        self.number = number
        self.parent = os.getppid()

    def work(self, changes: int, size: int) -> None:
        """Write `changes` registrations, each with another port, and some other operations, `size` per transaction."""
        while changes > 0 and os.getppid() == self.parent:
            operation = self.random.choices([self.register, self.report, self.deregister], [8, 1, 1])[0]
            keys = sorted({self.key() for _ in range(size)})
            with_retries(lambda operation=operation, keys=keys: self.delayed(operation, keys))  # type: ignore[misc]
            changes -= len(keys) if operation == self.register else 0

    def key(self) -> tuple[str, str]:
        return self.random.choice(SERVICES), f"w{self.number}-{self.random.randrange(NAMES)}"

    def delayed(self, operation: Callable[[list[tuple[str, str]]], Any], keys: list[tuple[str, str]]) -> None:
        """Between the last statement and the commit, ids are assigned and not yet visible."""
        with transaction.atomic():
            self.pause()
            operation(keys)
            self.pause()

    def pause(self) -> None:
        if self.random.random() < 0.1:
            time.sleep(self.random.uniform(0, 0.004))

    def register(self, keys: list[tuple[str, str]]) -> None:
        items = [
            Registration(
                service_name=service,
                instance_id=instance_id,
                host="10.0.0.1",
                port=self.random.randint(1, 65535),
                ttl_seconds=86400,
                owner="team",
            )
            for service, instance_id in keys
        ]
        refused = [outcome for outcome in manager.register(items, WRITER) if isinstance(outcome, RegistryError)]
        assert not refused, refused

    def report(self, keys: list[tuple[str, str]]) -> None:
        status: Any = self.random.choice(["UP", "DOWN", "STARTING"])
        items = [
            Heartbeat(service_name=service, instance_id=instance_id, status=status) for service, instance_id in keys
        ]
        manager.heartbeat(items, WRITER)

    def deregister(self, keys: list[tuple[str, str]]) -> None:
        manager.deregister([Deregistration(service_name=service, instance_id=name) for service, name in keys], WRITER)


def write(seed: int, number: int, singles: int, arrays: int) -> None:
    writer = Writer(seed, number)
    rounds = max(1, min(20, arrays // (3 * ARRAY)))  # of three arrays or more: each may write one more
    for _ in range(rounds):
        writer.work(singles // rounds, 1)
        writer.work(arrays // rounds, ARRAY)


def main(seed: str, count: str, singles: str, arrays: str, fault: str = "") -> None:
    if fault == "ids_without_the_lock":
        append.LOCK = WITHOUT_LOCK
    forking = multiprocessing.get_context("fork")
    counts = (int(singles), int(arrays))
    writers = [forking.Process(target=write, args=(int(seed), number, *counts)) for number in range(int(count))]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    sys.exit(max(abs(writer.exitcode or 0) for writer in writers))


if __name__ == "__main__":
    main(*sys.argv[1:])
