"""One trial: a registry of real processes, a fleet that sends heartbeats, and a checker."""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from tests.client import registration
from tests.faults import defects
from tests.faults.checker import Checker
from tests.faults.fleet import Fleet, Host
from tests.faults.timing import (
    OFF_THE_LIST_SECONDS,
    PROTECTION_SECONDS,
    SCALE,
    SERVICE_PROTECTION_SECONDS,
    SILENCE_SECONDS,
    SWEEP_SECONDS,
    TTL_SECONDS,
)
from tests.server.registry import Registry
from tests.waiting import wait_for


@dataclass
class Trial:
    registry: Registry
    fleet: Fleet
    checker: Checker
    began: float = field(default_factory=time.monotonic)

    def assert_fleet_stayed_listed(self, what: str, trials: int) -> None:
        """Print the results, and raise when a living instance was off the list, expired, or unknown."""
        time.sleep(OFF_THE_LIST_SECONDS)  # an instance that expires because of the fault has done so by then
        self.checker.stop()
        size, seconds = len(self.fleet.living), time.monotonic() - self.began
        print(
            f"\n{what}: {trials} trials with {size} living instances in {seconds:.0f} s (TTL {TTL_SECONDS} s, scale "
            f"1:{SCALE:g}); {len(self.checker.missing)} ever off the list in {self.checker.lists_read} reads, "
            f"{len(self.checker.expired)} expired, {len(self.fleet.lost)} unknown to a heartbeat; "
            f"{len(self.checker.protected)} protected meanwhile; heartbeats {dict(self.fleet.statuses)}"
        )
        self.fleet.assert_heartbeats_succeed()
        assert self.checker.lists_read > trials
        assert dict(self.checker.expired) == {}
        assert dict(self.checker.missing) == {}
        assert all(self.fleet.living <= seen for seen in self.checker.seen.values())
        assert self.fleet.lost == []
        assert self.checker.find_overlooked() == set()

    def assert_were_protected(self, hosts: Iterable[Host]) -> None:
        """Raise unless these hosts were protected: otherwise the fault did not happen, and the trial shows nothing."""
        protected = self.checker.protected
        keys = {f"{host.service_name}/{name}" for host in hosts for name in host.instance_ids}
        unprotected = keys - protected.keys()
        assert unprotected == set()


def has_loaded_all(registry: Registry, place: int) -> bool:
    """Return whether a process has the whole log in memory, from which it lists while the database is unreachable.

    It cannot have what another process committed less than 0.1 s before that.
    """
    newest = registry.sql("SELECT max(id) FROM service_registry_change")[0][0]
    index = registry.caller("registry-readers", place=place).call("GET", "/registry/watch").json["index"]
    return int(index.partition("-")[2]) >= int(newest)


def split_in_three(size: int) -> dict[str, int]:
    """Split `size` instances into three services, the largest with half of them."""
    shares = (size // 2, size // 3, size - size // 2 - size // 3)
    return {f"service-{number}": share for number, share in enumerate(shares) if share}


def register_permanent(registry: Registry, fleet: Fleet) -> None:
    """Register an instance that sends no heartbeat, and must stay listed in every trial."""
    body = registration("printer", "p-1", lease="none")
    assert registry.caller("registry-services", "team-faults").call("POST", "/registry/register", body).status == 201
    fleet.permanent.add(("printer", "p-1"))


@contextmanager
def start_trial(
    directory: Path,
    services: Mapping[str, int] = split_in_three(300),
    *,
    per_host: int = 5,
    repeats: bool = True,
    registry_class: type[Registry] = Registry,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Trial]:
    """Start two web processes, a worker, and instances that have all had a heartbeat.

    Arguments:
        services: the number of instances by service.
        per_host: instances whose heartbeats go in one array.
        repeats: whether a heartbeat without a response is repeated after a second.
        environment: over `variables`, for the registry's processes.
    """
    with registry_class(directory, web_processes=2, worker=True, variables=variables(**environment)) as registry:
        fleet = Fleet(registry.ports, repeats)
        for name, size in services.items():
            fleet.add(name, size, per_host=per_host)
        register_permanent(registry, fleet)
        wait_for(lambda: all(has_loaded_all(registry, place) for place in range(len(registry.ports))))
        checker = Checker(registry, fleet)
        try:
            yield Trial(registry, fleet, checker)
        finally:
            checker.stop()
            fleet.stop()


def variables(**more: str) -> dict[str, str]:
    """Return the environment of the started processes: shorter times, and the seeded defect, if any."""
    return {
        "REGISTRY_SWEEP_INTERVAL_SECONDS": str(SWEEP_SECONDS),
        "REGISTRY_PROTECTION_MAX_SECONDS": str(PROTECTION_SECONDS),
        "REGISTRY_SERVICE_PROTECTION_MAX_SECONDS": str(SERVICE_PROTECTION_SECONDS),
        "REGISTRY_SILENCE_MAX_SECONDS": str(SILENCE_SECONDS),
        **defects.variables(),
        **more,
    }


# With these no lease is ever protected.
UNPROTECTED = {
    "REGISTRY_PROTECTION_FRACTION": "1",
    "REGISTRY_SERVICE_PROTECTION_FRACTION": "1",
    "REGISTRY_SERVICE_PROTECTION_MAX_SECONDS": "0",
    "REGISTRY_SILENCE_MAX_SECONDS": "0",
}
