"""The rules in virtual time: what is promised of fleets that are cut off or die. `make simulate` tries far more."""

import random
from datetime import timedelta
from typing import Any

import pytest

from benchmarks.simulation.outcome import outcome
from benchmarks.simulation.registry import Lease as SimulatedLease
from benchmarks.simulation.registry import Registry
from benchmarks.simulation.scenarios import Scenario, scenarios, twenty_services
from benchmarks.simulation.world import BEGIN, World
from service_registry.expiry import counts
from service_registry.expiry.rules import Limits
from service_registry.models import Instance, Lease
from tests.ageing import set_window_age
from tests.client import Api, registration
from tests.fleets import LONG

SHORT = [scenario for scenario in scenarios() if not scenario.long]


@pytest.mark.parametrize("scenario", SHORT, ids=lambda scenario: scenario.name)
def test_a_promise_is_kept(scenario: Scenario) -> None:
    found = scenario.run(7)
    assert scenario.kept_by(found), found


def test_names_are_distinct() -> None:
    names = [scenario.name for scenario in scenarios()]
    assert len(names) == len(set(names))


WITHOUT_HOLDS = Limits(fleet_seconds=0, service_seconds=0)
WITHOUT_SILENCE = Limits(silence_max_seconds=0, fleet_seconds=0, service_seconds=0)


@pytest.mark.parametrize(("limits", "share"), [(WITHOUT_HOLDS, 0.6), (WITHOUT_SILENCE, 1.0)])
def test_without_the_rule_the_living_expire(limits: Limits, share: float) -> None:
    world = World(7, twenty_services(), limits=limits)
    world.cut(world.share(share), BEGIN, BEGIN + 100)
    world.run(BEGIN + 200)
    assert outcome(world).false > 100


def test_a_window_that_does_not_restart_is_seen() -> None:
    world = World(7, twenty_services(), limits=WITHOUT_SILENCE)
    world.database_down = (BEGIN, BEGIN + 100)
    world.registry.pulse = lambda now: setattr(world.registry, "heard_at", now)  # type: ignore[method-assign]
    world.run(BEGIN + 200)
    assert outcome(world).false > 100


@pytest.mark.parametrize("seed", range(5))
def test_the_database_counts_as_the_simulation_does(payments: Api, seed: int) -> None:
    """The one thing that is written twice: in SQL, and in the simulation's Python."""
    chance = random.Random(seed)
    ids = [f"i-{number}" for number in range(400)]
    items = [
        registration(f"s{number % 9}", name, ttl_seconds=chance.choice((5, 30, 300))) for number, name in enumerate(ids)
    ]
    payments.post("/registry/register", items)
    set_window_age(LONG)
    now = counts.take().at
    rows = []
    for lease in Lease.objects.all():
        lease.beats = chance.choice((0, 1, 50))
        lease.heartbeat_at = now - timedelta(seconds=chance.uniform(0, 1.5 * lease.ttl_seconds))
        gone = chance.random() < 0.2
        lease.expired_at = now - timedelta(seconds=chance.uniform(0, 120)) if gone else None
        rows.append(lease)
    Lease.objects.bulk_update(rows, ["beats", "heartbeat_at", "expired_at"])
    counted = counts.take()
    simulated, keys = copied(counted.now)
    cohorts, due = simulated.count(counted.now)
    assert sorted(map(rounded, counted.cohorts)) == sorted(map(rounded, cohorts))
    assert sorted(map(repr, counts.groups(counted))) == sorted(map(repr, simulated.groups(counted.now)))
    assert (counted.due, len({keys[key] for key in due})) == (len(due), len(due))
    assert counted.due > 20


def rounded(cohort: Any) -> tuple[Any, ...]:
    return cohort.ttl_seconds, cohort.live, cohort.late, cohort.gone, round(cohort.heard_at, 3)


def copied(now: float) -> tuple[Registry, list[int]]:
    """The leases of the database, in memory, and their keys."""
    registry = Registry(Limits())
    registry.window_started_at = now - LONG
    keys = []
    for instance in Instance.objects.select_related("lease").order_by("pk"):
        lease = instance.lease
        expired_at = lease.expired_at.timestamp() if lease.expired_at else None
        registry.leases.append(
            SimulatedLease(
                instance.service_id, lease.ttl_seconds, lease.heartbeat_at.timestamp(), lease.beats, expired_at
            )
        )
        keys.append(instance.pk)
    return registry, keys
