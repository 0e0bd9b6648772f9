"""Writers and watchers together, and what the watchers were told compared with the log."""

import itertools
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.client import registration, token
from tests.wire.running import ROOT, Running, wait_for

WRITERS = 8
WATCHERS = 16
PATIENCE_SECONDS = 120


@dataclass
class Findings:
    """Over all watchers. `seen` counts the changes they were told of, `starts` how often they began with the list."""

    seen: int = 0
    starts: int = 0
    missed: int = 0
    repeated: int = 0
    out_of_order: int = 0
    copies_that_differ: int = 0
    unfinished: int = 0
    changes: int = 0

    @property
    def faults(self) -> int:
        return self.missed + self.repeated + self.out_of_order + self.copies_that_differ + self.unfinished


@dataclass
class Storm:
    """A run over a registry of real processes. `mutant` is the writers'; `troubled` kills web processes and feeds."""

    registry: Running
    directory: Path
    singles: int
    arrays: int
    mutant: str = ""
    troubled: str = ""
    watchers: int = WATCHERS
    chance: random.Random = field(default_factory=lambda: random.Random(1))

    def run(self) -> Findings:
        watchers = [self.watcher(number) for number in range(self.watchers)]
        writers = [self.writer(number) for number in range(WRITERS)]
        self.disturb_until_done(writers)
        assert [writer.wait() for writer in writers] == [0] * WRITERS
        self.register_the_last()
        for watcher in watchers:
            try:
                watcher.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                watcher.kill()
                watcher.wait()
        return self.findings()

    def writer(self, number: int) -> subprocess.Popen[bytes]:
        counts = (str(self.singles // WRITERS), str(self.arrays // WRITERS))
        return self.registry.start("-m", "tests.live.writer", str(number), *counts, *filter(None, [self.mutant]))

    def watcher(self, number: int) -> subprocess.Popen[bytes]:
        ports = [str(port) for port in self.registry.ports]
        way = ("stream", "poll")[number % 2]
        bearer = token("registry-readers", subject=f"watcher-{number}", ttl_seconds=3600)
        with (self.directory / "watchers").open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.live.watcher", way, str(number), str(self.result(number)), *ports],
                env=os.environ | {"WATCHER_TOKEN": bearer},
                cwd=ROOT,
                stdout=output,
                stderr=output,
            )
        self.registry.started.append(process)
        return process

    def result(self, number: int) -> Path:
        return self.directory / f"watcher-{number}.json"

    def disturb_until_done(self, writers: Sequence[subprocess.Popen[bytes]]) -> None:
        while any(writer.poll() is None for writer in writers):
            time.sleep(self.chance.uniform(0.2, 1.0))
            if self.troubled == "feeds":
                self.registry.sql(END_FEEDS)
            elif self.troubled == "web":
                place = self.chance.randrange(len(self.registry.web))
                self.registry.kill_web(place)

    def register_the_last(self) -> None:
        for place in itertools.count():
            try:
                caller = self.registry.caller("registry-services", "team", place=place % len(self.registry.ports))
                if caller.call("POST", "/registry/register", registration("the-end", "the-end")).status == 201:
                    return
            except OSError:
                time.sleep(0.1)

    def findings(self) -> Findings:
        log = [pk for (pk,) in self.registry.sql("SELECT id FROM service_registry_change ORDER BY id")]
        whole = self.listed()
        total = Findings(changes=len(log))
        for number in range(self.watchers):
            if self.result(number).exists():
                judge(json.loads(self.result(number).read_text()), log, whole, total)
            else:
                total.unfinished += 1
        return total

    def listed(self) -> dict[str, Any]:
        wait_for(lambda: self.registry.ready(self.registry.ports[0]))
        reader = self.registry.caller("registry-readers")
        found: dict[str, Any] = {}
        after = ""
        while after is not None:
            page = reader.call("GET", f"/registry/services?limit=500{after and f'&after={after}'}").json
            for service in page["services"]:
                for instance in service["instances"]:
                    found[f"{service['namespace']}/{service['name']}/{instance['instance_id']}"] = instance
            after = page["next"]
        return found


END_FEEDS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'service-registry-feed'"


def judge(result: Any, log: list[int], whole: dict[str, Any], total: Findings) -> None:
    """Add what one watcher was told to the findings."""
    ids = result["ids"]
    expected = {pk for pk in log if pk > result["began_at"]}
    total.seen += len(ids)
    total.starts += result["starts"]
    total.missed += len(expected - set(ids))
    total.repeated += len(ids) - len(set(ids))
    total.out_of_order += sum(later < earlier for earlier, later in itertools.pairwise(ids))
    total.copies_that_differ += result["copy"] != whole
