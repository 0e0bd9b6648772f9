"""Races between operations: threads with their own connections, on committed rows."""

import random
import threading
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
from django.db import connection, connections, transaction
from pytest_django import Settings

from service_registry import manager, metrics
from service_registry.caller import Caller
from service_registry.exceptions import InstanceNotFound, NotOwner
from service_registry.expiry.empty_services import end_empty_services
from service_registry.expiry.sweep import sweep
from service_registry.models import Change, Instance, Lease, Override, RegistryState, Reservation, Service
from service_registry.schemas import Deregistration, Heartbeat, InstanceOverride, Registration, ServiceOwners
from tests import ageing
from tests.client import registration
from tests.manager.concurrency import run_concurrently

pytestmark = pytest.mark.django_db(transaction=True)

OWNER = Caller("owner", frozenset({"team"}), frozenset({"register_instance", "deregister_instance"}))


def instance(instance_id: str, service_name: str = "web", **fields: Any) -> Registration:
    return Registration(**registration(service_name, instance_id, **fields))


def test_concurrent_claims_of_a_name_have_one_winner() -> None:
    rivals = [Caller(team, frozenset({team}), frozenset({"register_instance"})) for team in ("team-a", "team-b")]
    for trial in range(200):
        name = f"service-{trial}"
        runs = [
            lambda rival=rival, name=name: manager.register([instance(rival.actor, name)], rival)[0] for rival in rivals
        ]
        outcomes = run_concurrently(runs)
        won = [outcome for outcome in outcomes if isinstance(outcome, manager.Registered)]
        assert len(won) == 1
        assert sum(isinstance(outcome, NotOwner) for outcome in outcomes) == 1
        (owner,) = Service.objects.get(name=name).owners
        assert won[0].document["instance_id"] == owner
    assert Change.objects.filter(kind="service_created").count() == 200


def test_concurrent_registrations_of_a_new_instance_make_one_row() -> None:
    for trial in range(30):
        runs = [
            lambda port=port, trial=trial: manager.register([instance(f"i-{trial}", port=port)], OWNER)[0]
            for port in (1, 2, 3)
        ]
        outcomes = run_concurrently(runs)
        assert sum(outcome.created for outcome in outcomes) == 1
    assert Instance.objects.count() == 30
    kinds = ["registered", "updated"]
    epochs = list(Change.objects.filter(kind__in=kinds).values_list("instance__epoch", flat=True))
    assert len(epochs) == len(set(epochs))


def test_concurrent_batches_in_any_order_never_deadlock() -> None:
    """8 writers, 1,000 calls: overlapping arrays in random order that register, renew with a status and deregister."""
    names = [("web", f"i-{number}") for number in range(15)] + [("api", f"i-{number}") for number in range(15)]
    deadlocks = count_deadlocks()

    def write(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(125):
            keys = chance.sample(names, 12)
            choice = chance.random()
            if choice < 0.4:
                ports = [chance.choice((80, 81)) for _ in keys]
                items = [instance(key[1], key[0], port=port) for key, port in zip(keys, ports, strict=True)]
                outcomes: list[Any] = [*manager.register(items, OWNER)]
                assert all(isinstance(outcome, manager.Registered) for outcome in outcomes)
            elif choice < 0.8:
                statuses = [chance.choice((None, "UP", "DOWN")) for _ in keys]
                beats = [
                    Heartbeat(service_name=key[0], instance_id=key[1], status=status)
                    for key, status in zip(keys, statuses, strict=True)
                ]
                outcomes = [*manager.heartbeat(beats, OWNER)]
                assert all(isinstance(outcome, manager.Renewed | InstanceNotFound) for outcome in outcomes)
            else:
                leaving = [Deregistration(service_name=key[0], instance_id=key[1]) for key in keys[:3]]
                outcomes = [*manager.deregister(leaving, OWNER)]
                assert all(isinstance(outcome, manager.Deregistered | InstanceNotFound) for outcome in outcomes)

    run_concurrently([partial(write, seed) for seed in range(8)])
    assert count_deadlocks() == deadlocks
    assert Lease.objects.count() == Instance.objects.count()


def count_deadlocks() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_clear_snapshot()")
        cursor.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        return int(cursor.fetchone()[0])


def test_heartbeat_during_a_sweep_is_never_lost() -> None:
    """In either order, an instance whose heartbeat was answered is listed."""
    for _ in range(40):
        manager.register([instance("i-1")], OWNER)
        ageing.age_leases(34)
        (beaten, _swept) = run_concurrently(
            [lambda: manager.heartbeat([Heartbeat(service_name="web", instance_id="i-1")], OWNER)[0], sweep]
        )
        assert isinstance(beaten, manager.Renewed)
        assert Lease.objects.get().expired_at is None
    kinds = list(Change.objects.order_by("id").values_list("kind", flat=True))
    assert kinds.count("expired") == kinds.count("recovered")


def test_concurrent_sweeps_log_each_expiry_once() -> None:
    for trial in range(20):
        manager.register([instance(f"i-{trial}-{number}") for number in range(20)], OWNER)
        ageing.age_leases(60, instance_id__startswith=f"i-{trial}-")
        run_concurrently([sweep, sweep, sweep])
        sweep()
    assert Change.objects.filter(kind="expired").count() == 400


def register_proven(names: Sequence[str]) -> None:
    manager.register([instance(name) for name in names], OWNER)
    beats = manager.heartbeat([Heartbeat(service_name="web", instance_id=name) for name in names], OWNER)
    assert all(isinstance(outcome, manager.Renewed) for outcome in beats)


def test_heartbeat_during_a_sweep_ends_or_prevents_protection() -> None:
    """Four of five are protected. The fifth sends a heartbeat during the sweep."""
    names = [f"i-{number}" for number in range(5)]
    for _ in range(40):
        register_proven(names)
        ageing.age_leases(34)
        beaten, _swept = run_concurrently(
            [lambda: manager.heartbeat([Heartbeat(service_name="web", instance_id="i-0")], OWNER)[0], sweep]
        )
        assert isinstance(beaten, manager.Renewed)
        assert Lease.objects.get(instance__instance_id="i-0").protected_at is None
        sweep()
        assert set(Instance.objects.protected().values_list("instance_id", flat=True)) == set(names[1:])
    kinds = list(Change.objects.filter(instance_id="i-0").values_list("kind", flat=True))
    assert kinds.count("protected") == kinds.count("recovered")
    assert "expired" not in kinds


def test_concurrent_sweeps_log_each_protection_once() -> None:
    for trial in range(20):
        names = [f"i-{trial}-{number}" for number in range(20)]
        register_proven(names)
        ageing.age_leases(34, instance_id__startswith=f"i-{trial}-")
        run_concurrently([sweep, sweep, sweep])
        sweep()
        assert Instance.objects.protected().count() == 20
        outcomes = manager.deregister([Deregistration(service_name="web", instance_id=name) for name in names], OWNER)
        assert all(isinstance(outcome, manager.Deregistered) for outcome in outcomes)
    assert Change.objects.filter(kind="protected").count() == 400


def test_concurrent_sweeps_restart_the_window_once() -> None:
    for trial in range(20):
        for service in ("web", "api", "mail"):
            manager.register([instance(f"i-{number}", service) for number in range(7)], OWNER)
            manager.heartbeat(
                [Heartbeat(service_name=service, instance_id=f"i-{number}") for number in range(7)], OWNER
            )
        ageing.age_leases(60)
        run_concurrently([sweep, sweep, sweep])
        sweep()
        assert RegistryState.objects.get().suspended_at is not None, trial
        manager.heartbeat([Heartbeat(service_name="web", instance_id="i-0")], OWNER)
        before = metrics.window_restarts.labels("suspension")._value.get()
        run_concurrently([sweep, sweep, sweep])
        sweep()
        assert metrics.window_restarts.labels("suspension")._value.get() - before == 1
    assert not Change.objects.filter(kind__in=["expired", "protected"]).exists()


def test_register_during_a_purge_makes_a_new_row() -> None:
    for trial in range(20):
        manager.register([instance("i-1")], OWNER)
        ageing.age_leases(60)
        sweep()
        ageing.age_expiries(700)
        registered, _swept = run_concurrently([lambda: manager.register([instance("i-1")], OWNER)[0], sweep])
        assert isinstance(registered, manager.Registered), trial
        assert Instance.objects.count() == 1


def test_change_ids_follow_commit_order() -> None:
    """A reader that has seen a change has seen all changes with lower ids."""
    stop = threading.Event()
    seen: list[int] = []

    def read() -> None:
        last = 0
        while not stop.is_set():
            with connection.cursor() as cursor:
                cursor.execute("SELECT id FROM service_registry_change WHERE id > %s ORDER BY id", [last])
                ids = [row[0] for row in cursor.fetchall()]
            seen.extend(ids)
            last = ids[-1] if ids else last
        connections.close_all()

    def write(writer: int) -> None:
        # Registrations of one owner would wait for each other, for its quota.
        owner = Caller("owner", frozenset({f"team-{writer}"}), frozenset({"register_instance"}))
        for number in range(30):
            with transaction.atomic():
                manager.register([instance(f"i-{writer}-{number}", f"service-{writer}")], owner)
                time.sleep(random.uniform(0, 0.004))  # others commit meanwhile, unless they wait for this transaction

    reader = threading.Thread(target=read)
    reader.start()
    run_concurrently([partial(write, writer) for writer in range(6)])
    stop.set()
    reader.join()
    missed = sorted(set(Change.objects.filter(id__lte=max(seen)).values_list("id", flat=True)) - set(seen))
    assert missed == []


def test_last_change_after_concurrent_override_and_register_shows_both() -> None:
    """Neither waits for the other. The change that is committed later shows the instance as it is then."""
    operator = Caller("operator", frozenset(), frozenset({"operate_instance"}))
    manager.register([instance("first")], OWNER)
    for trial in range(100):
        name = f"i-{trial}"
        order = InstanceOverride(service_name="web", instance_id=name, status="DOWN", reason="test")
        run_concurrently(
            [partial(manager.register, [instance(name)], OWNER), partial(manager.override, [order], operator)]
        )
        logged = Change.objects.filter(instance_id=name).latest("id").instance
        assert logged is not None
        assert logged["status"] == "DOWN", trial


ADMIN = Caller("admin", frozenset(), frozenset({"manage_service", "operate_instance"}))


def set_owners(name: str, *owners: str) -> Any:
    return manager.set_owners([ServiceOwners(name=name, owners=[*owners])], ADMIN)[0]


def register_one(service_name: str) -> Any:
    return manager.register([instance("i-1", service_name)], OWNER)[0]


def kinds_of(service_name: str) -> list[str]:
    return list(Change.objects.filter(service_name=service_name).order_by("id").values_list("kind", flat=True))


def test_concurrent_set_owners_of_a_new_name_create_it_once() -> None:
    for trial in range(50):
        name = f"service-{trial}"
        outcomes = run_concurrently([partial(set_owners, name, owner) for owner in ("team-a", "team-b", "team-c")])
        assert sum(outcome.created for outcome in outcomes) == 1
        assert kinds_of(name) == ["service_created", "owners_changed", "owners_changed"]
        last = Change.objects.filter(service_name=name).latest("id").evidence
        assert last is not None
        assert Service.objects.get(name=name).owners == last["owners"]


def test_set_owners_during_a_register_decides_by_the_order_in_the_log() -> None:
    orders = set()
    for trial in range(60):
        name = f"service-{trial}"
        set_owners(name, "team")
        registered, _owned = run_concurrently([partial(register_one, name), partial(set_owners, name, "other")])
        kinds = kinds_of(name)[1:]
        orders.add(tuple(kinds))
        if isinstance(registered, manager.Registered):
            assert kinds == ["registered", "owners_changed"]
        else:
            assert isinstance(registered, NotOwner)
            assert kinds == ["owners_changed"]
    print(f"orders that occurred: {orders}")


def test_delete_service_during_a_register_leaves_the_instance_in_a_service() -> None:
    for trial in range(60):
        name = f"service-{trial}"
        set_owners(name, "team")
        registered, refused = run_concurrently(
            [
                partial(register_one, name),
                partial(manager.delete_service, "default", name, None, ADMIN),
            ]
        )
        assert isinstance(registered, manager.Registered)
        assert Instance.objects.get(service__name=name).instance_id == "i-1"
        assert ("service_deleted" in kinds_of(name)) == (refused is None)
        assert kinds_of(name)[-1] == "registered"


def test_delete_service_during_set_owners_agrees_with_the_log() -> None:
    for trial in range(60):
        name = f"service-{trial}"
        set_owners(name, "team-a")
        run_concurrently(
            [partial(set_owners, name, "team-b"), partial(manager.delete_service, "default", name, None, ADMIN)]
        )
        deleted = kinds_of(name)[-1] == "service_deleted"
        assert Service.objects.filter(name=name).exists() == (not deleted)
        assert Reservation.objects.filter(name=name).exists() == deleted


def test_concurrent_overrides_in_any_order_never_deadlock() -> None:
    """Each batch sets or clears, as front ends do. No instance exists: its lock would put the batches in order."""
    set_owners("web", "team")
    deadlocks = count_deadlocks()

    def write(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(40):
            status = chance.choice((None, "DOWN"))
            items = [
                InstanceOverride(service_name="web", instance_id=f"i-{number}", status=status, reason="test")
                for number in chance.sample(range(20), 12)
            ]
            outcomes = manager.override(items, ADMIN)
            assert all(isinstance(outcome, manager.Overridden) for outcome in outcomes)

    run_concurrently([partial(write, seed) for seed in range(6)])
    assert count_deadlocks() == deadlocks


def test_concurrent_registrations_never_pass_the_quotas_of_their_owner(settings: Settings) -> None:
    """40 trials of 6 arrays of 5 new instances in a new service each: 30 instances for 12, 6 services for 4."""
    settings.REGISTRY_MAX_INSTANCES_PER_OWNER, settings.REGISTRY_MAX_SERVICES_PER_OWNER = 12, 4
    for trial in range(40):
        caller = Caller("owner", frozenset({f"team-{trial}"}), frozenset({"register_instance"}))
        arrays = [[instance(f"i-{number}", f"{trial}-{place}") for number in range(5)] for place in range(6)]
        outcomes = run_concurrently([partial(manager.register, array, caller) for array in arrays])
        accepted = sum(isinstance(outcome, manager.Registered) for array in outcomes for outcome in array)
        assert (accepted, Instance.objects.filter(service__owners=caller_owners(caller)).count()) == (12, 12)
        assert Service.objects.filter(owners=caller_owners(caller)).count() <= 4


def caller_owners(caller: Caller) -> list[str]:
    return sorted(caller.groups)


def test_concurrent_claims_never_pass_the_quota_of_services(settings: Settings) -> None:
    settings.REGISTRY_MAX_SERVICES_PER_OWNER = 3
    for trial in range(40):
        caller = Caller("owner", frozenset({f"team-{trial}"}), frozenset({"register_instance"}))
        claims = [partial(manager.register, [instance("i-1", f"{trial}-{place}")], caller) for place in range(6)]
        outcomes = [outcome for (outcome,) in run_concurrently(claims)]
        assert sum(isinstance(outcome, manager.Registered) for outcome in outcomes) == 3
        assert Service.objects.filter(owners=caller_owners(caller)).count() == 3


def test_concurrent_overrides_never_pass_the_quota_of_their_owner(settings: Settings) -> None:
    settings.REGISTRY_MAX_OVERRIDES_WITHOUT_INSTANCE = 3
    for trial in range(40):
        team = f"team-{trial}"
        caller = Caller("owner", frozenset({team}), frozenset({"override_status"}))
        for place in range(6):
            set_owners(f"{trial}-{place}", team)
        orders = [
            InstanceOverride(service_name=f"{trial}-{place}", instance_id="gone", status="DOWN", reason="test")
            for place in range(6)
        ]
        outcomes = run_concurrently([partial(manager.override, [order], caller) for order in orders])
        assert sum(isinstance(outcome, manager.Overridden) for (outcome,) in outcomes) == 3
        assert Override.objects.filter(service__owners=[team]).count() == 3


def test_handover_during_registrations_counts_for_the_new_owner(settings: Settings) -> None:
    """An owner of 2 instances may have 4, and is given a service of 2 more while it registers the third."""
    settings.REGISTRY_MAX_INSTANCES_PER_OWNER = 4
    for trial in range(40):
        team = f"team-{trial}"
        caller = Caller("owner", frozenset({team}), frozenset({"register_instance"}))
        giver = Caller("giver", frozenset({f"giver-{trial}"}), frozenset({"register_instance"}))
        manager.register([instance("i-1", f"given-{trial}"), instance("i-2", f"given-{trial}")], giver)
        own = [instance(f"i-{number}", f"own-{trial}") for number in range(4)]
        if trial % 2:
            manager.register(own[:2], caller)
        run_concurrently([partial(set_owners, f"given-{trial}", team), partial(manager.register, own[:2], caller)])
        outcomes = manager.register(own, caller)
        assert sum(isinstance(outcome, manager.Registered) for outcome in outcomes) == 2
        assert Instance.objects.filter(service__owners=[team]).count() == 4


def test_register_while_an_empty_service_ends_keeps_the_instance() -> None:
    """100 trials, in each of which a registration meets the end of its service."""
    ended = 0
    for trial in range(100):
        name = f"service-{trial}"
        register_one(name)
        manager.deregister([Deregistration(service_name=name, instance_id="i-1")], OWNER)
        ageing.age_services(8, name=name)
        registered, count = run_concurrently([partial(register_one, name), end_empty_services])
        assert isinstance(registered, manager.Registered)
        assert Instance.objects.get(service__name=name).instance_id == "i-1"
        assert kinds_of(name)[-1] == "registered"
        assert ("service_deleted" in kinds_of(name)) == bool(count)
        ended += count
    assert 0 < ended <= 100
