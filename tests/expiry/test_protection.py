"""Protection on the database: which due leases stay listed, by which rule, and how protection ends."""

import dataclasses
import time
from datetime import timedelta

import pytest
from django.db.models.functions import Now
from pytest_django import Settings

from service_registry.expiry import dry_run
from service_registry.expiry.counts import FleetCount, count_fleet
from service_registry.expiry.evidence import format_rfc3339
from service_registry.expiry.lease_decisions import LeaseDecisions, build_protection
from service_registry.expiry.sweep import ROWS_PER_TRANSACTION, sweep
from service_registry.models import Change, Lease, RegistryState
from tests import ageing
from tests.client import Api, registration
from tests.fleets import change_kinds, expired_ids, protected_ids, register_fleet, send_heartbeats, set_heartbeat_age

DUE = 33.5  # just past the deadline of a TTL of 30
FIVE_EACH = {f"s{number}": 5 for number in range(20)}


def one_of_each(ids: list[str], count: int) -> list[str]:
    """Return the first instance of each of `count` services."""
    return [name for name in ids if name.endswith("-0")][:count]


def database_time(seconds_ago: float) -> float:
    return count_fleet().now - seconds_ago


def decide_by(fleet: FleetCount) -> int:
    """Decide on the due leases by a count, and return how many were found."""
    return LeaseDecisions(fleet, build_protection(fleet)).apply_page(ROWS_PER_TRANSACTION)


def test_lone_death_in_a_fleet_expires(payments: Api) -> None:
    ids = register_fleet(payments, FIVE_EACH)
    set_heartbeat_age(DUE, ids[:1])
    assert (sweep().expired, expired_ids(), protected_ids()) == (1, {ids[0]}, set())


def test_late_leases_above_the_fleet_limit_are_protected_and_listed(payments: Api, reader: Api) -> None:
    ids = register_fleet(payments, FIVE_EACH)
    dead = one_of_each(ids, 16)
    set_heartbeat_age(DUE, dead)
    report = sweep()
    assert (report.expired, report.protected, protected_ids()) == (0, 16, set(dead))
    answer = reader.get("/registry/services/s0").json
    assert answer["protected"]
    assert {item["instance_id"]: item["state"] for item in answer["instances"]}["s0-0"] == "protected"
    assert "s0-0" not in [
        item["instance_id"] for item in reader.get("/registry/services/s0?protected=false").json["instances"]
    ]


def test_late_leases_at_the_fleet_limit_expire(payments: Api) -> None:
    ids = register_fleet(payments, FIVE_EACH)
    set_heartbeat_age(DUE, one_of_each(ids, 15))
    assert (sweep().expired, protected_ids()) == (15, set())


def test_late_leases_are_counted_before_they_are_due(payments: Api) -> None:
    """The first lease of a cohort is protected although it alone is due."""
    ids = register_fleet(payments, FIVE_EACH)
    set_heartbeat_age(0.71 * 30, one_of_each(ids, 16))
    set_heartbeat_age(DUE, ["s0-0"])
    assert sweep().expired == 0
    assert protected_ids() == {"s0-0"}


def test_leases_not_yet_late_are_not_counted(payments: Api) -> None:
    ids = register_fleet(payments, FIVE_EACH)
    set_heartbeat_age(0.69 * 30, one_of_each(ids, 16))
    set_heartbeat_age(DUE, ["s0-0"])
    assert sweep().expired == 1


def test_protected_instance_gets_one_change_with_its_evidence(payments: Api) -> None:
    ids = register_fleet(payments, FIVE_EACH)
    dead = one_of_each(ids, 16)
    set_heartbeat_age(DUE, dead)
    for _ in range(3):
        sweep()
    assert change_kinds(dead) == {("registered", "protected")}
    change = Change.objects.filter(kind="protected")[0]
    assert change.instance is not None
    assert change.evidence is not None
    assert (change.actor, change.instance["state"]) == ("system:sweep", "protected")
    assert change.reason == "no heartbeat before the deadline; protected by the rule fleet"
    assert change.evidence["window_started_at"] < change.evidence["heartbeat_at"] < change.evidence["deadline"]
    assert change.evidence["deadline"] < change.evidence["swept_at"]
    rules = {rule["rule"]: rule for rule in change.evidence["rules"]}
    assert (rules["fleet"]["counted"], rules["fleet"]["limit"]) == (16, 15)
    assert (rules["service"]["counted"], rules["service"]["protected_until"]) == (1, None)
    assert rules["fleet"]["protected_until"] > change.evidence["swept_at"]


def test_heartbeat_ends_protection(payments: Api) -> None:
    ids = register_fleet(payments, FIVE_EACH)
    dead = one_of_each(ids, 16)
    set_heartbeat_age(DUE, dead)
    sweep()
    send_heartbeats(payments, dead[:1])
    assert protected_ids() == set(dead[1:])
    assert change_kinds(dead[:1]) == {("registered", "protected", "recovered")}


def test_protection_lasts_after_the_count_has_fallen(payments: Api) -> None:
    ids = register_fleet(payments, FIVE_EACH)
    dead = one_of_each(ids, 16)
    set_heartbeat_age(DUE, dead)
    sweep()
    send_heartbeats(payments, dead[1:])
    assert sweep().expired == 0
    assert protected_ids() == {dead[0]}
    set_heartbeat_age(33 + 899, dead[:1])
    assert sweep().expired == 0
    set_heartbeat_age(33 + 901, dead[:1])
    assert sweep().expired == 1
    assert change_kinds(dead[:1]) == {("registered", "protected", "expired")}
    assert Change.objects.get(kind="expired").reason == "no heartbeat before the deadline, nor while it was protected"


def test_protection_ends_although_the_window_restarts_again_and_again(payments: Api) -> None:
    """No web process pulses for a moment in every ten minutes."""
    ids = register_fleet(payments, FIVE_EACH)
    dead = one_of_each(ids, 16)
    set_heartbeat_age(DUE, dead)
    sweep()
    assert protected_ids() == set(dead)
    set_heartbeat_age(33 + 899, dead)
    for protected_seconds, window_seconds, expiries in ((590, 32, 0), (899, DUE, 0), (901, 32, 0), (901, DUE, 10)):
        ageing.set_protection_age(protected_seconds)
        ageing.set_window_age(window_seconds)
        assert sweep().expired == expiries
    assert len(expired_ids()) == 10
    assert change_kinds(expired_ids()) == {("registered", "protected", "expired")}


def test_protection_that_began_in_the_future_begins_anew(payments: Api) -> None:
    """The database's clock was set back: protection must not last until then. No second change is appended."""
    ids = register_fleet(payments, FIVE_EACH)
    dead = one_of_each(ids, 16)
    set_heartbeat_age(DUE, dead)
    sweep()
    ageing.set_protection_age(-86400)
    assert sweep().expired == 0
    assert protected_ids() == set(dead)
    assert Lease.objects.filter(protected_at__gt=Now()).count() == 0
    assert change_kinds(dead) == {("registered", "protected")}


def test_evidence_gives_the_end_of_protection_after_a_restart_of_the_window(payments: Api) -> None:
    ids = register_fleet(payments, FIVE_EACH)
    dead = one_of_each(ids, 16)
    set_heartbeat_age(DUE, dead)
    sweep()
    set_heartbeat_age(33 + 899, dead)
    ageing.set_protection_age(600)
    ageing.set_window_age(DUE)
    protected_at = Lease.objects.get(instance__instance_id=dead[0]).protected_at
    assert protected_at is not None
    predictions = dry_run.predict(dry_run.read_outlook())
    prediction = next(each for each in predictions if each.lease.instance_id == dead[0])
    assert prediction.describe().endswith(f"until {format_rfc3339(protected_at + timedelta(seconds=900))}")


def test_at_most_ten_protections_end_in_a_sweep(payments: Api) -> None:
    ids = register_fleet(payments, FIVE_EACH)
    dead = ids[:60]
    set_heartbeat_age(DUE, dead)
    assert sweep().protected == 60
    set_heartbeat_age(33 + 901, dead)
    assert [sweep().expired for _ in range(7)] == [10, 10, 10, 10, 10, 10, 0]


def test_at_most_a_twentieth_of_a_large_fleet_ends_protection_in_a_sweep(payments: Api) -> None:
    ids = register_fleet(payments, {f"s{number}": 50 for number in range(20)})
    set_heartbeat_age(DUE, ids[:600])
    assert sweep().protected == 600
    set_heartbeat_age(33 + 901, ids[:600])
    assert [sweep().expired for _ in range(2)] == [50, 47]


def test_sweep_after_the_time_of_protection_expires_slowly_too(payments: Api) -> None:
    """No sweep ran while protection would have begun. They do not all leave at once all the same."""
    ids = register_fleet(payments, FIVE_EACH)
    set_heartbeat_age(33 + 901, ids[:60])
    assert (sweep().expired, protected_ids()) == (10, set())


def test_lease_that_waits_does_not_delay_another(payments: Api) -> None:
    """Leases with later keys are decided on in the same sweep."""
    ids = register_fleet(payments, FIVE_EACH)
    set_heartbeat_age(DUE, ids[:60])
    sweep()
    payments.register("last", "unproven")
    set_heartbeat_age(33 + 901, ids[:60])
    set_heartbeat_age(DUE, ["unproven"])
    assert sweep().expired == 11
    assert "unproven" in expired_ids()


def test_expiries_of_the_last_minute_are_counted(payments: Api) -> None:
    ids = register_fleet(payments, FIVE_EACH)
    dead = one_of_each(ids, 20)
    set_heartbeat_age(DUE, dead[:10])
    assert sweep().expired == 10
    set_heartbeat_age(DUE, dead[10:16])
    assert (sweep().expired, protected_ids()) == (0, set(dead[10:16]))


@pytest.mark.parametrize("how", ["too long ago", "recovered"])
def test_old_or_recovered_expiries_are_not_counted(payments: Api, how: str) -> None:
    ids = register_fleet(payments, FIVE_EACH)
    dead = one_of_each(ids, 20)
    set_heartbeat_age(DUE, dead[:10])
    sweep()
    if how == "recovered":
        send_heartbeats(payments, dead[:10])
    else:
        ageing.age_expiries(61)
    set_heartbeat_age(DUE, dead[10:16])
    assert (sweep().expired, protected_ids()) == (6, set())


def test_unproven_leases_are_neither_counted_nor_protected(payments: Api) -> None:
    ids = register_fleet(payments, FIVE_EACH)
    crashed = [f"crash-{number}" for number in range(200)]
    payments.post("/registry/register", [registration("crash", name) for name in crashed])
    set_heartbeat_age(DUE, [*crashed, ids[0]])
    assert sweep().expired == 201


def test_due_lease_is_compared_with_leases_of_no_longer_ttl(payments: Api) -> None:
    """A hundred leases of TTL 300 do not raise the limit for six of TTL 5."""
    long = register_fleet(payments, {f"long{number}": 10 for number in range(10)}, ttl_seconds=300)
    short = register_fleet(payments, {f"short{number}": 10 for number in range(3)}, ttl_seconds=5)
    set_heartbeat_age(6.5, [name for name in short if name[-1] in "01"])
    assert (sweep().expired, len(protected_ids())) == (0, 6)
    assert len(long) == 100


def test_late_leases_of_longer_ttl_do_not_protect_a_lease(payments: Api) -> None:
    long = register_fleet(payments, {f"long{number}": 10 for number in range(10)}, ttl_seconds=300)
    short = register_fleet(payments, {f"short{number}": 10 for number in range(3)}, ttl_seconds=5)
    set_heartbeat_age(250, long[:50])
    set_heartbeat_age(6.5, short[:1])
    assert (sweep().expired, protected_ids()) == (1, set())


def test_one_service_does_not_protect_another(payments: Api) -> None:
    """All 40 instances of one service stop, and one of another service, which expires at its time."""
    ids = register_fleet(payments, {"tenant": 40, "other": 60} | FIVE_EACH)
    set_heartbeat_age(DUE, [*ids[:40], "other-0"])
    sweep()
    assert (expired_ids(), protected_ids()) == ({"other-0"}, set(ids[:40]))
    assert set(Lease.objects.filter(protected_at__isnull=False).values_list("protected_by", flat=True)) == {"service"}


def test_more_than_half_of_a_service_is_protected_for_two_minutes(payments: Api) -> None:
    ids = register_fleet(payments, {"small": 8} | FIVE_EACH)
    dead = ids[:5]
    set_heartbeat_age(DUE, dead)
    sweep()
    assert protected_ids() == set(dead)
    set_heartbeat_age(33 + 119, dead)
    assert sweep().expired == 0
    set_heartbeat_age(33 + 121, dead)
    assert (sweep().expired, protected_ids()) == (5, set())


@pytest.mark.parametrize(("size", "count"), [(8, 4), (4, 4), (2, 2), (1, 1)])
def test_half_of_a_service_or_a_service_under_five_expires(payments: Api, size: int, count: int) -> None:
    ids = register_fleet(payments, {"small": size} | FIVE_EACH)
    set_heartbeat_age(DUE, ids[:count])
    assert (sweep().expired, protected_ids()) == (count, set())


@pytest.mark.parametrize("services", [{"a": 3}, {"a": 1, "b": 1, "c": 1}, {"a": 5}, {"a": 3, "b": 3, "c": 2}])
def test_small_fleet_with_all_leases_late_is_protected_for_two_minutes(payments: Api, services: dict[str, int]) -> None:
    ids = register_fleet(payments, services)
    set_heartbeat_age(25, ids)
    set_heartbeat_age(DUE, ids[:1])
    assert (sweep().expired, protected_ids()) == (0, {ids[0]})
    set_heartbeat_age(33 + 119, ids)
    assert sweep().expired == 0
    set_heartbeat_age(33 + 121, ids)
    assert (sweep().expired, protected_ids()) == (len(ids), set())


@pytest.mark.parametrize("services", [{"a": 1}, {"a": 2}, {"a": 1, "b": 1}])
def test_fleet_of_one_or_two_is_not_protected(payments: Api, services: dict[str, int]) -> None:
    ids = register_fleet(payments, services)
    set_heartbeat_age(DUE, ids)
    assert sweep().expired == len(ids)


def test_small_fleet_with_one_live_instance_is_not_protected(payments: Api) -> None:
    ids = register_fleet(payments, {"a": 3})
    set_heartbeat_age(DUE, ids[:2])
    assert sweep().expired == 2


def test_deregistered_instance_is_not_protected(payments: Api) -> None:
    ids = register_fleet(payments, {"a": 8})
    set_heartbeat_age(DUE, ids)
    sweep()
    for name in ids:
        assert payments.deregister("a", name).status == 204
    assert payments.listed("a") == []


def test_limits_are_settings(payments: Api, settings: Settings) -> None:
    settings.REGISTRY_PROTECTION_FRACTION = 0.5
    settings.REGISTRY_SERVICE_PROTECTION_MAX_SECONDS = 0
    ids = register_fleet(payments, FIVE_EACH)
    set_heartbeat_age(DUE, one_of_each(ids, 20))
    assert sweep().expired == 20


def test_protection_by_the_service_rule_continues_by_the_fleet_rule(payments: Api) -> None:
    """No second change is appended when the fleet's rule takes over."""
    ids = register_fleet(payments, {"small": 8} | FIVE_EACH)
    dead = ids[:5]
    set_heartbeat_age(DUE, dead)
    sweep()
    others = one_of_each(ids[8:], 20)
    set_heartbeat_age(DUE, others)
    set_heartbeat_age(33 + 121, dead)
    sweep()
    assert protected_ids() == {*dead, *others}
    assert change_kinds(dead) == {("registered", "protected")}
    set_heartbeat_age(33 + 901, dead)
    assert sweep().expired == 5


def test_old_or_future_count_decides_on_no_lease(payments: Api) -> None:
    """A sweep may be frozen between its transactions."""
    ids = register_fleet(payments, FIVE_EACH)
    set_heartbeat_age(DUE + 10, ids[:1])
    counted = count_fleet()
    assert decide_by(dataclasses.replace(counted, at=counted.at - timedelta(seconds=5))) == 0
    assert decide_by(dataclasses.replace(counted, at=counted.at + timedelta(days=30))) == 0
    assert decide_by(counted) == 1


def test_heartbeat_between_count_and_decision_renews_the_lease(payments: Api) -> None:
    ids = register_fleet(payments, FIVE_EACH)
    set_heartbeat_age(DUE, ids[:2])
    counted = count_fleet()
    decisions = LeaseDecisions(counted, build_protection(counted))
    send_heartbeats(payments, ids[:1])
    assert decisions.apply_page(ROWS_PER_TRANSACTION) == 1
    assert expired_ids() == {ids[1]}


def test_lease_due_since_the_count_waits_for_the_next_sweep(payments: Api) -> None:
    ids = register_fleet(payments, FIVE_EACH)
    counted = count_fleet()
    decisions = LeaseDecisions(counted, build_protection(counted))
    not_yet_due = counted.at - timedelta(seconds=32.999)
    Lease.objects.filter(instance__instance_id=ids[0]).update(heartbeat_at=not_yet_due)
    time.sleep(0.01)
    assert decisions.apply_page(ROWS_PER_TRANSACTION) == 0
    assert sweep().expired == 1


def test_lease_that_was_late_with_too_many_is_protected_after_they_recover(payments: Api) -> None:
    """A partition heals just when the last leases become due: the first heartbeats must not make those expire."""
    ids = register_fleet(payments, FIVE_EACH)
    dead = one_of_each(ids, 16)
    set_heartbeat_age(32, dead)
    assert (sweep().expired, protected_ids()) == (0, set())
    send_heartbeats(payments, dead[1:])
    set_heartbeat_age(DUE, dead[:1])
    assert (sweep().expired, protected_ids()) == (0, {dead[0]})
    evidence = Change.objects.get(kind="protected").evidence
    assert evidence is not None
    assert {"rule": "fleet", "counted": 1, "limit": 15, "exceeded_earlier": True} in [
        {name: value for name, value in found.items() if name != "protected_until"} for found in evidence["rules"]
    ]


def test_lease_that_was_not_late_with_too_many_expires(payments: Api) -> None:
    ids = register_fleet(payments, FIVE_EACH)
    dead = one_of_each(ids, 16)
    set_heartbeat_age(25, dead)
    sweep()
    send_heartbeats(payments, dead)
    RegistryState.objects.update(exceeded_limits={"30": ["fleet", database_time(13)]})
    set_heartbeat_age(DUE, ids[1:2])
    assert sweep().expired == 1


def test_exceeded_limit_is_forgotten_when_no_lease_of_that_time_can_become_due(payments: Api) -> None:
    register_fleet(payments, FIVE_EACH)
    for seconds_ago, kept in ((30, True), (34, False), (-5, False)):
        RegistryState.objects.update(exceeded_limits={"30": ["fleet", database_time(seconds_ago)]})
        sweep()
        assert bool(RegistryState.objects.get().exceeded_limits) == kept
