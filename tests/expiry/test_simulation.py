"""The rules in virtual time: fleets that are cut off or die. `make simulate` runs more scenarios."""

import random
from datetime import timedelta
from typing import Any

import pytest

from benchmarks.simulation.outcome import measure
from benchmarks.simulation.registry import Lease as SimulatedLease
from benchmarks.simulation.registry import Registry
from benchmarks.simulation.scenarios import Scenario, scenarios, twenty_services
from benchmarks.simulation.world import BEGIN, World
from service_registry.expiry.counts import count_fleet, count_groups
from service_registry.expiry.protection import Limits
from service_registry.models import Instance, Lease
from tests.ageing import set_window_age
from tests.client import Api, registration
from tests.fleets import LONG

SHORT = [scenario for scenario in scenarios() if not scenario.long]


@pytest.mark.parametrize("scenario", SHORT, ids=lambda scenario: scenario.name)
def test_scenario_keeps_its_promise(scenario: Scenario) -> None:
    found = scenario.run(7)
    assert scenario.kept_by(found), found


def test_scenario_names_are_distinct() -> None:
    names = [scenario.name for scenario in scenarios()]
    assert len(names) == len(set(names))


WITHOUT_PROTECTION = Limits(fleet_seconds=0, service_seconds=0)
WITHOUT_ANY_RULE = Limits(suspension_max_seconds=0, fleet_seconds=0, service_seconds=0)


@pytest.mark.parametrize(("limits", "share"), [(WITHOUT_PROTECTION, 0.6), (WITHOUT_ANY_RULE, 1.0)])
def test_live_instances_expire_without_the_rule(limits: Limits, share: float) -> None:
    world = World(7, twenty_services(), limits=limits)
    world.cut(world.share(share), BEGIN, BEGIN + 100)
    world.run(BEGIN + 200)
    assert measure(world).false > 100


def test_live_instances_expire_when_the_window_does_not_restart() -> None:
    world = World(7, twenty_services(), limits=WITHOUT_ANY_RULE)
    world.database_down = (BEGIN, BEGIN + 100)
    world.registry.pulse = lambda now: setattr(world.registry, "observed_at", now)  # type: ignore[method-assign]
    world.run(BEGIN + 200)
    assert measure(world).false > 100


@pytest.mark.parametrize("seed", range(5))
def test_database_counts_as_the_simulation_does(payments: Api, seed: int) -> None:
    """The counts exist twice: in SQL, and in the simulation's Python."""
    chance = random.Random(seed)
    ids = [f"i-{number}" for number in range(400)]
    items = [
        registration(f"s{number % 9}", name, ttl_seconds=chance.choice((5, 30, 300))) for number, name in enumerate(ids)
    ]
    assert {result["status"] for result in payments.post("/registry/register", items).json["results"]} == {201}
    set_window_age(LONG)
    now = count_fleet().at
    rows = []
    for lease in Lease.objects.all():
        assert lease.ttl_seconds
        lease.beats = chance.choice((0, 1, 50))
        lease.heartbeat_at = now - timedelta(seconds=chance.uniform(0, 1.5 * lease.ttl_seconds))
        expired = chance.random() < 0.2
        lease.expired_at = now - timedelta(seconds=chance.uniform(0, 120)) if expired else None
        rows.append(lease)
    Lease.objects.bulk_update(rows, ["beats", "heartbeat_at", "expired_at"])
    counted = count_fleet()
    simulated, keys = copy_leases(counted.now)
    cohorts, due = simulated.count(counted.now)
    assert sorted(map(round_cohort, counted.cohorts)) == sorted(map(round_cohort, cohorts))
    assert sorted(map(repr, count_groups(counted))) == sorted(map(repr, simulated.count_groups(counted.now)))
    assert (counted.due, len({keys[key] for key in due})) == (len(due), len(due))
    assert counted.due > 20


def round_cohort(cohort: Any) -> tuple[Any, ...]:
    return cohort.ttl_seconds, cohort.live, cohort.late, cohort.expired, round(cohort.renewed_at, 3)


def copy_leases(now: float) -> tuple[Registry, list[int]]:
    """Copy the database's leases to a simulated registry, and return it with their keys."""
    registry = Registry(Limits())
    registry.window_started_at = now - LONG
    keys = []
    for instance in Instance.objects.select_related("lease").order_by("pk"):
        lease = instance.lease
        if lease.ttl_seconds is None:
            continue  # permanent: no rule counts it
        expired_at = lease.expired_at.timestamp() if lease.expired_at else None
        registry.leases.append(
            SimulatedLease(
                instance.service_id, lease.ttl_seconds, lease.heartbeat_at.timestamp(), lease.beats, expired_at
            )
        )
        keys.append(instance.pk)
    return registry, keys
