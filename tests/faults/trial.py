"""A registry of real processes with a fleet that beats and a checker that looks, for one fault."""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from tests.faults import defects
from tests.faults.checker import Checker
from tests.faults.fleet import Fleet, Host
from tests.faults.timing import (
    HOLD_SECONDS,
    OFF_THE_LIST_SECONDS,
    SCALE,
    SHORT_HOLD_SECONDS,
    SILENCE_SECONDS,
    SWEEP_SECONDS,
    TTL_SECONDS,
)
from tests.server.registry import Registry
from tests.waiting import wait_for


@dataclass
class Stage:
    registry: Registry
    fleet: Fleet
    checker: Checker
    began: float = field(default_factory=time.monotonic)

    def assert_none_was_off_the_list(self, what: str, trials: int) -> None:
        """Print what was measured, and raise when a living instance was off the list, expired, or unknown."""
        time.sleep(OFF_THE_LIST_SECONDS)  # who leaves because of the fault has left by then
        self.checker.stop()
        size, seconds = len(self.fleet.living), time.monotonic() - self.began
        print(
            f"\n{what}: {trials} trials with {size} living instances in {seconds:.0f} s (TTL {TTL_SECONDS} s, scale "
            f"1:{SCALE:g}); {len(self.checker.missing)} ever off the list in {self.checker.looks} looks, "
            f"{len(self.checker.expired)} expired, {len(self.fleet.lost)} unknown to a beat; "
            f"{len(self.checker.protected)} protected meanwhile; beats {dict(self.fleet.statuses)}"
        )
        self.fleet.assert_it_beats()
        assert self.checker.looks > trials
        assert dict(self.checker.expired) == {}
        assert dict(self.checker.missing) == {}
        assert self.fleet.lost == []
        assert self.checker.overlooked() == set()

    def assert_were_held(self, hosts: Iterable[Host]) -> None:
        """Whoever was cut off for longer than a TTL was due: else the fault has not happened, and shows nothing."""
        held = self.checker.protected
        never = [host for host in hosts if any(f"{host.service_name}/{name}" not in held for name in host.instance_ids)]
        assert never == []


def knows_all(registry: Registry, place: int) -> bool:
    """Whether a process has the whole log in memory, from which it lists while the database is away: what another took
    in less than 0.1 s before that, it cannot know."""
    newest = registry.sql("SELECT max(id) FROM service_registry_change")[0][0]
    index = registry.caller("registry-readers", place=place).call("GET", "/registry/watch").json["index"]
    return int(index.partition("-")[2]) >= int(newest)


def in_three(size: int) -> dict[str, int]:
    """`size` instances in three services, the largest with half of them."""
    shares = (size // 2, size // 3, size - size // 2 - size // 3)
    return {f"service-{number}": share for number, share in enumerate(shares) if share}


@contextmanager
def stage(
    directory: Path,
    services: Mapping[str, int] = in_three(300),
    *,
    per_host: int = 5,
    repeats: bool = True,
    running: type[Registry] = Registry,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Stage]:
    """Two web processes, a worker, and instances that have all beaten: so many of each service, so many on a host.

    `environment` is over what `variables` gives the registry's processes.
    """
    with running(directory, web_processes=2, worker=True, variables=variables(**environment)) as registry:
        fleet = Fleet(registry.ports, repeats)
        for name, size in services.items():
            fleet.add(name, size, per_host=per_host)
        wait_for(lambda: all(knows_all(registry, place) for place in range(len(registry.ports))))
        checker = Checker(registry, fleet)
        try:
            yield Stage(registry, fleet, checker)
        finally:
            checker.stop()
            fleet.stop()


def variables(**more: str) -> dict[str, str]:
    """The environment of the started processes: time shortened, and the defect that the suite is to catch, if any."""
    return {
        "REGISTRY_SWEEP_INTERVAL_SECONDS": str(SWEEP_SECONDS),
        "REGISTRY_PROTECTION_MAX_SECONDS": str(HOLD_SECONDS),
        "REGISTRY_SERVICE_PROTECTION_MAX_SECONDS": str(SHORT_HOLD_SECONDS),
        "REGISTRY_SILENCE_MAX_SECONDS": str(SILENCE_SECONDS),
        **defects.variables(),
        **more,
    }


# With these nobody is ever held, and each lease stands for itself.
UNPROTECTED = {
    "REGISTRY_PROTECTION_FRACTION": "1",
    "REGISTRY_SERVICE_PROTECTION_FRACTION": "1",
    "REGISTRY_SERVICE_PROTECTION_MAX_SECONDS": "0",
    "REGISTRY_SILENCE_MAX_SECONDS": "0",
}
