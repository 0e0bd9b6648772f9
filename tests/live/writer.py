"""A process that writes changes by the verbs themselves, with random delays inside its transactions.

    python -m tests.live.writer SEED SINGLES ARRAYS [MUTANT]

It makes about SINGLES changes in ones and ARRAYS in arrays of 50, in services that it shares with the other writers.
"""

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
from service_registry.changes import appending  # noqa: E402
from service_registry.database.retrying import retried  # noqa: E402
from service_registry.schemas import Beat, Deregistration, Registration  # noqa: E402

SERVICES = [f"shared-{number}" for number in range(10)]
ARRAY = 50
PERMISSIONS = frozenset({"register_instance", "heartbeat_instance", "deregister_instance"})
WRITER = Caller("writer", frozenset({"team"}), PERMISSIONS)
WITHOUT_LOCK = "SELECT %s::bigint, set_config('synchronous_commit', 'on', true)"


class Writer:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.seed = seed
        self.mine: set[tuple[str, str]] = set()

    def work(self, changes: int, size: int) -> None:
        """Write so many changes and some more, `size` of them a transaction. Registrations alone are counted, each of
        which says another port."""
        while changes > 0:
            verb = self.random.choices([self.register, self.report, self.deregister], [8, 1, 1])[0]
            keys = sorted({self.key() for _ in range(size)})
            retried(lambda verb=verb, keys=keys: self.delayed(verb, keys))  # type: ignore[misc]
            changes -= len(keys) if verb == self.register else 0

    def key(self) -> tuple[str, str]:
        return self.random.choice(SERVICES), f"w{self.seed}-{self.random.randrange(300)}"

    def delayed(self, verb: Callable[[list[tuple[str, str]]], Any], keys: list[tuple[str, str]]) -> None:
        """Between the verb's last statement and the commit ids are taken and not yet seen."""
        with transaction.atomic():
            self.dawdle()
            verb(keys)
            self.dawdle()

    def dawdle(self) -> None:
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
        manager.register(items, WRITER)

    def report(self, keys: list[tuple[str, str]]) -> None:
        status: Any = self.random.choice(["UP", "DOWN", "STARTING"])
        items = [Beat(service_name=service, instance_id=instance_id, status=status) for service, instance_id in keys]
        manager.heartbeat(items, WRITER)

    def deregister(self, keys: list[tuple[str, str]]) -> None:
        manager.deregister([Deregistration(service_name=service, instance_id=name) for service, name in keys], WRITER)


def main(seed: str, singles: str, arrays: str, mutant: str = "") -> None:
    if mutant == "ids_without_the_lock":
        appending.LOCK = WITHOUT_LOCK
    writer = Writer(int(seed))
    rounds = max(1, min(20, int(arrays) // ARRAY))
    for _ in range(rounds):
        writer.work(int(singles) // rounds, 1)
        writer.work(int(arrays) // rounds, ARRAY)


if __name__ == "__main__":
    main(*sys.argv[1:])
