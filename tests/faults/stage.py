"""A registry of real processes with a fleet that beats and a checker that looks, for one fault."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults import defects
from tests.faults.checker import Checker
from tests.faults.fleet import Fleet
from tests.faults.scale import SCALE, SWEEP_SECONDS, TTL_SECONDS
from tests.wire.running import Running

# So that who is off the list because of the fault is seen to be: its deadline, and a sweep.
AFTERMATH_SECONDS = 2.5 * TTL_SECONDS


@dataclass
class Stage:
    registry: Running
    fleet: Fleet
    checker: Checker
    began: float = field(default_factory=time.monotonic)

    def settle(self) -> None:
        time.sleep(AFTERMATH_SECONDS)

    def assert_none_was_off_the_list(self, what: str, trials: int) -> None:
        """Print what was measured, and raise when a beating instance was off the list, expired, or unknown."""
        self.settle()
        self.checker.stop()
        size, seconds = len(self.fleet.beating), time.monotonic() - self.began
        print(
            f"\n{what}: {trials} trials with {size} beating instances in {seconds:.0f} s (TTL {TTL_SECONDS} s, scale "
            f"1:{SCALE:g}); {len(self.checker.missing)} ever off the list in {self.checker.looks} looks, "
            f"{len(self.checker.expired)} expired, {len(self.fleet.lost)} unknown to a beat; "
            f"{len(self.checker.protected)} protected meanwhile; beats {dict(self.fleet.statuses)}"
        )
        assert self.checker.looks > trials
        assert dict(self.checker.expired) == {}
        assert dict(self.checker.missing) == {}
        assert self.fleet.lost == []
        assert self.checker.overlooked() == set()


@contextmanager
def stage(
    directory: Path, size: int = 300, *, worker: bool = True, repeats: bool = True, registry: Running | None = None
) -> Iterator[Stage]:
    """`size` instances in three services over two web processes, all of which have beaten."""
    running = registry or Running(directory, web_processes=2, worker=worker, variables=variables())
    with running:
        fleet = Fleet(running.ports, repeats)
        for number, share in enumerate((size // 2, size // 3, size - size // 2 - size // 3)):
            fleet.add(f"service-{number}", share)
        checker = Checker(running, fleet)
        try:
            yield Stage(running, fleet, checker)
        finally:
            checker.stop()
            fleet.stop()


def variables(**more: str) -> dict[str, str]:
    """The environment of the started processes: time shortened, and the defect that the suite is to catch, if any."""
    return {"REGISTRY_SWEEP_INTERVAL_SECONDS": str(SWEEP_SECONDS), "WEB_THREADS": "2", **defects.variables(), **more}
