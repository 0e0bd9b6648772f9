"""One run of writers and watchers."""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.client import registration, token
from tests.server.registry import ROOT, Caller, Registry
from tests.waiting import wait_for
from tests.watch_consistency.findings import Findings

SHARE = int(os.environ.get("WATCH_SHARE", "10"))
SINGLES, ARRAYS = 20_000 // SHARE, 200_000 // SHARE
WRITERS_MODULE = "tests.watch_consistency.writers"
WRITERS, WATCHERS = 8, 16
# For the last change to arrive: a watcher that misses it would wait for ever.
FINISH_SECONDS = 120
PROGRESS_SECONDS = 15

NEWEST_ID = "SELECT max(id) FROM service_registry_change"
LOG = "SELECT id FROM service_registry_change WHERE id > {} ORDER BY id"
FEEDS = "SELECT pid FROM pg_stat_activity WHERE application_name = 'service-registry-feed'"

Disturb = Callable[[Registry, random.Random], object]


def terminate_feeds(registry: Registry, _chance: random.Random) -> None:
    """Terminate the connection on which each web process reads the log."""
    registry.sql(f"SELECT pg_terminate_backend(pid) FROM ({FEEDS}) AS feed")


def kill_one(registry: Registry, chance: random.Random) -> None:
    registry.kill_web(chance.randrange(len(registry.web)))


def kill_all(registry: Registry, _chance: random.Random) -> None:
    """Kill all web processes at once: nothing responds, and nothing is left in memory."""
    for process in registry.web:
        process.kill()
        process.wait()
    registry.web = [registry.start_web(port) for port in registry.ports]
    for port in registry.ports:
        wait_for(partial(registry.is_ready, port))


@dataclass
class ConsistencyRun:
    """A run over a registry of real processes, of half of all changes by default.

    Arguments:
        registry: may have had runs before.
        fault: of the writers, by its name in `writers`.
        disturb: called again and again until the writers have finished.
        finish_seconds: how long watchers may take to receive the last change.
    """

    registry: Registry
    directory: Path
    seed: int = 0
    singles: int = SINGLES // 2
    arrays: int = ARRAYS // 2
    writers: int = WRITERS
    watchers: int = WATCHERS
    fault: str = ""
    disturb: Disturb | None = None
    finish_seconds: float = FINISH_SECONDS
    disturbances: int = 0

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)

    def assert_every_change_is_sent_once_in_order(self, name: str) -> None:
        """Run, and print the findings with the number of trials."""
        found = self.run()
        print(f"\n{name}: {found}", flush=True)
        assert found.faults == 0, found
        assert found.changes > self.singles + self.arrays
        assert found.arrivals > found.changes
        assert found.comparisons > 0
        assert bool(found.disturbances) == bool(self.disturb)

    def run(self) -> Findings:
        self.began = self.printed_at = time.monotonic()
        self.log_began_at = self.read_newest_id()
        watchers = [self.start_watcher(number) for number in range(self.watchers)]
        writers = self.start_writers()
        try:
            self.disturb_until_done(writers)
            assert writers.wait() == 0, (self.registry.directory / "output").read_text()[-2000:]
            self.register_last_instance()
            self.wait_for_watchers(watchers)
        finally:
            for process in (writers, *watchers):
                process.kill()
                process.wait()
        return self.findings()

    @property
    def last(self) -> str:
        """The instance of the service `the-end` whose registration ends this run."""
        return f"after-{self.log_began_at}"

    def read_newest_id(self) -> int:
        return int(self.registry.sql(NEWEST_ID)[0][0])

    def start_writers(self) -> subprocess.Popen[bytes]:
        counts = (self.seed, self.writers, self.singles // self.writers, self.arrays // self.writers)
        return self.registry.start("-m", WRITERS_MODULE, *map(str, counts), *filter(None, [self.fault]))

    def start_watcher(self, number: int) -> subprocess.Popen[bytes]:
        mode = ("stream", "poll")[number % 2]
        bearer = token("registry-readers", subject=f"watcher-{number}", ttl_seconds=3600)
        seed = self.seed * self.watchers + number
        arguments = (mode, str(seed), str(self.result_path(number)), self.last, *map(str, self.registry.ports))
        with (self.directory / "watchers").open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.watch_consistency.watcher", *arguments],
                env=os.environ | {"WATCHER_TOKEN": bearer},
                cwd=ROOT,
                stdout=output,
                stderr=output,
            )
        self.registry.started.append(process)
        return process

    def result_path(self, number: int) -> Path:
        return self.directory / f"watcher-{number}.json"

    def disturb_until_done(self, writers: subprocess.Popen[bytes]) -> None:
        while writers.poll() is None:
            time.sleep(self.chance.uniform(0.2, 1.0))
            if self.disturb and self.read_newest_id() > self.log_began_at:
                self.disturb(self.registry, self.chance)
                self.disturbances += 1
            if time.monotonic() - self.printed_at > PROGRESS_SECONDS:
                self.printed_at = time.monotonic()
                changes, seconds = self.read_newest_id() - self.log_began_at, self.printed_at - self.began
                print(f"  {seconds:4.0f} s: {changes:,} changes, {self.disturbances} disturbances", flush=True)

    def register_last_instance(self) -> None:
        """Register it once all feeds read again: the watchers of a feed that misses it would wait."""
        wait_for(lambda: len(self.registry.sql(FEEDS)) >= len(self.registry.web))
        caller = self.registry.caller("registry-services", "team")
        answer = caller.call("POST", "/registry/register", registration("the-end", self.last, ttl_seconds=86400))
        assert answer.status == 201, answer.body

    def wait_for_watchers(self, watchers: list[subprocess.Popen[bytes]]) -> None:
        """A watcher that does not receive the last change in time has no result."""
        deadline = time.monotonic() + self.finish_seconds
        while any(watcher.poll() is None for watcher in watchers) and time.monotonic() < deadline:
            time.sleep(0.05)

    def findings(self) -> Findings:
        log = [pk for (pk,) in self.registry.sql(LOG.format(self.log_began_at))]
        reader = self.registry.caller("registry-readers")
        wait_for(lambda: int(reader.read_newest_index().partition("-")[2]) >= log[-1])
        whole = dict(read_list(reader))
        found = Findings(len(log), self.disturbances, time.monotonic() - self.began)
        for number in range(self.watchers):
            if self.result_path(number).exists():
                found.add(json.loads(self.result_path(number).read_text()), log, whole)
            else:
                found.unfinished += 1
        return found


def read_list(reader: Caller) -> Iterator[tuple[str, Any]]:
    after = ""
    while after is not None:
        page = reader.call("GET", f"/registry/services?limit=500{after and f'&after={after}'}").json
        for service in page["services"]:
            for instance in service["instances"]:
                yield f"{service['namespace']}/{service['name']}/{instance['instance_id']}", instance
        after = page["next"]
