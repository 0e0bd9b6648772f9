"""Protection: which leases are held past their deadline, by which rule, and how each hold ends."""

import dataclasses
import time
from datetime import timedelta

import pytest
from django.db.models.functions import Now
from pytest_django import Settings

from service_registry.expiry import apply, counts, dry_run, evidence
from service_registry.expiry.apply import Judging
from service_registry.expiry.sweep import ROWS_A_TRANSACTION, sweep
from service_registry.models import Change, Lease, RegistryState
from tests import ageing
from tests.client import Api, registration
from tests.fleets import change_kinds, expired_ids, protected_ids, register_fleet, send_heartbeats, set_heartbeat_age

DUE = 33.5  # just past the deadline of a TTL of 30
FIVE_EACH = {f"s{number}": 5 for number in range(20)}


def one_of_each(ids: list[str], count: int) -> list[str]:
    """One instance of each of so many services."""
    return [name for name in ids if name.endswith("-0")][:count]


def moment(seconds_ago: float) -> float:
    """By the database's clock."""
    return counts.take().now - seconds_ago


def test_a_lone_death_in_a_fleet_is_not_held(payments: Api) -> None:
    ids = register_fleet(payments, FIVE_EACH)
    set_heartbeat_age(DUE, ids[:1])
    assert (sweep().expired, expired_ids(), protected_ids()) == (1, {ids[0]}, set())


def test_more_than_fifteen_in_a_hundred_are_held_and_listed(payments: Api, reader: Api) -> None:
    ids = register_fleet(payments, FIVE_EACH)
    gone = one_of_each(ids, 16)
    set_heartbeat_age(DUE, gone)
    report = sweep()
    assert (report.expired, report.protected, protected_ids()) == (0, 16, set(gone))
    answer = reader.get("/registry/services/s0").json
    assert answer["protected"]
    assert {item["instance_id"]: item["state"] for item in answer["instances"]}["s0-0"] == "protected"
    assert "s0-0" not in [
        item["instance_id"] for item in reader.get("/registry/services/s0?protected=false").json["instances"]
    ]


def test_fifteen_in_a_hundred_are_not_held(payments: Api) -> None:
    ids = register_fleet(payments, FIVE_EACH)
    set_heartbeat_age(DUE, one_of_each(ids, 15))
    assert (sweep().expired, protected_ids()) == (15, set())


def test_the_late_are_counted_before_they_are_due(payments: Api) -> None:
    """The first of a cohort is held although it alone is due."""
    ids = register_fleet(payments, FIVE_EACH)
    set_heartbeat_age(0.71 * 30, one_of_each(ids, 16))
    set_heartbeat_age(DUE, ["s0-0"])
    assert sweep().expired == 0
    assert protected_ids() == {"s0-0"}


def test_those_not_yet_late_are_not_counted(payments: Api) -> None:
    ids = register_fleet(payments, FIVE_EACH)
    set_heartbeat_age(0.69 * 30, one_of_each(ids, 16))
    set_heartbeat_age(DUE, ["s0-0"])
    assert sweep().expired == 1


def test_one_who_is_held_gets_one_change_with_its_evidence(payments: Api) -> None:
    ids = register_fleet(payments, FIVE_EACH)
    gone = one_of_each(ids, 16)
    set_heartbeat_age(DUE, gone)
    for _ in range(3):
        sweep()
    assert change_kinds(gone) == {("registered", "protected")}
    change = Change.objects.filter(kind="protected")[0]
    assert change.instance is not None
    assert change.evidence is not None
    assert (change.actor, change.instance["state"]) == ("system:sweep", "protected")
    assert change.reason == "no heartbeat before the deadline; protected by the rule fleet"
    assert change.evidence["window_started_at"] < change.evidence["heartbeat_at"] < change.evidence["deadline"]
    assert change.evidence["deadline"] < change.evidence["swept_at"]
    holds = {found["rule"]: found for found in change.evidence["rules"]}
    assert (holds["fleet"]["counted"], holds["fleet"]["limit"]) == (16, 15)
    assert (holds["service"]["counted"], holds["service"]["protected_until"]) == (1, None)
    assert holds["fleet"]["protected_until"] > change.evidence["swept_at"]


def test_a_heartbeat_ends_a_hold(payments: Api) -> None:
    ids = register_fleet(payments, FIVE_EACH)
    gone = one_of_each(ids, 16)
    set_heartbeat_age(DUE, gone)
    sweep()
    send_heartbeats(payments, gone[:1])
    assert protected_ids() == set(gone[1:])
    assert change_kinds(gone[:1]) == {("registered", "protected", "recovered")}


def test_a_hold_outlasts_the_count_that_gave_it(payments: Api) -> None:
    ids = register_fleet(payments, FIVE_EACH)
    gone = one_of_each(ids, 16)
    set_heartbeat_age(DUE, gone)
    sweep()
    send_heartbeats(payments, gone[1:])
    assert sweep().expired == 0
    assert protected_ids() == {gone[0]}
    set_heartbeat_age(33 + 899, gone[:1])
    assert sweep().expired == 0
    set_heartbeat_age(33 + 901, gone[:1])
    assert sweep().expired == 1
    assert change_kinds(gone[:1]) == {("registered", "protected", "expired")}
    assert Change.objects.get(kind="expired").reason == "no heartbeat before the deadline, nor while it was protected"


def test_a_hold_ends_also_while_the_window_restarts_again_and_again(payments: Api) -> None:
    """A registry that is deaf for a moment every ten minutes."""
    ids = register_fleet(payments, FIVE_EACH)
    gone = one_of_each(ids, 16)
    set_heartbeat_age(DUE, gone)
    sweep()
    assert protected_ids() == set(gone)
    set_heartbeat_age(33 + 899, gone)
    for held_seconds, silent_seconds, expiries in ((590, 32, 0), (899, DUE, 0), (901, 32, 0), (901, DUE, 10)):
        ageing.set_protection_age(held_seconds)
        ageing.set_window_age(silent_seconds)
        assert sweep().expired == expiries
    assert len(expired_ids()) == 10
    assert change_kinds(expired_ids()) == {("registered", "protected", "expired")}


def test_a_hold_of_a_time_to_come_is_given_anew(payments: Api) -> None:
    """The database's clock was set back since: the hold must not last until then, and readers are not told twice."""
    ids = register_fleet(payments, FIVE_EACH)
    gone = one_of_each(ids, 16)
    set_heartbeat_age(DUE, gone)
    sweep()
    ageing.set_protection_age(-86400)
    assert sweep().expired == 0
    assert protected_ids() == set(gone)
    assert Lease.objects.filter(protected_at__gt=Now()).count() == 0
    assert change_kinds(gone) == {("registered", "protected")}


def test_the_evidence_says_when_a_hold_ends_by_the_clock_it_has(payments: Api) -> None:
    ids = register_fleet(payments, FIVE_EACH)
    gone = one_of_each(ids, 16)
    set_heartbeat_age(DUE, gone)
    sweep()
    set_heartbeat_age(33 + 899, gone)
    ageing.set_protection_age(600)
    ageing.set_window_age(DUE)
    protected_at = Lease.objects.get(instance__instance_id=gone[0]).protected_at
    assert protected_at is not None
    found = next(each for each in dry_run.prospects(dry_run.outlook()) if each.candidate.instance_id == gone[0])
    assert found.fate.endswith(f"until {evidence.rfc3339(protected_at + timedelta(seconds=900))}")


def test_when_a_hold_is_over_ten_leave_a_sweep(payments: Api) -> None:
    ids = register_fleet(payments, FIVE_EACH)
    gone = ids[:60]
    set_heartbeat_age(DUE, gone)
    assert sweep().protected == 60
    set_heartbeat_age(33 + 901, gone)
    assert [sweep().expired for _ in range(7)] == [10, 10, 10, 10, 10, 10, 0]


def test_of_a_large_fleet_a_twentieth_leaves_a_sweep(payments: Api) -> None:
    ids = register_fleet(payments, {f"s{number}": 50 for number in range(20)})
    set_heartbeat_age(DUE, ids[:600])
    assert sweep().protected == 600
    set_heartbeat_age(33 + 901, ids[:600])
    assert [sweep().expired for _ in range(2)] == [50, 47]


def test_a_sweep_that_comes_after_the_hold_would_be_over_lets_go_slowly_too(payments: Api) -> None:
    """No sweep ran while the hold would have been given: nobody is held, and still they do not all leave at once."""
    ids = register_fleet(payments, FIVE_EACH)
    set_heartbeat_age(33 + 901, ids[:60])
    assert (sweep().expired, protected_ids()) == (10, set())


def test_one_who_waits_to_leave_does_not_keep_another_from_leaving(payments: Api) -> None:
    """Those behind it, by their keys, are judged in the same sweep."""
    ids = register_fleet(payments, FIVE_EACH)
    set_heartbeat_age(DUE, ids[:60])
    sweep()
    payments.register("last", "never-beat")
    set_heartbeat_age(33 + 901, ids[:60])
    set_heartbeat_age(DUE, ["never-beat"])
    assert sweep().expired == 11
    assert "never-beat" in expired_ids()


def test_expiries_of_the_last_minute_are_counted(payments: Api) -> None:
    ids = register_fleet(payments, FIVE_EACH)
    gone = one_of_each(ids, 20)
    set_heartbeat_age(DUE, gone[:10])
    assert sweep().expired == 10
    set_heartbeat_age(DUE, gone[10:16])
    assert (sweep().expired, protected_ids()) == (0, set(gone[10:16]))


@pytest.mark.parametrize("how", ["too long ago", "heard of since"])
def test_expiries_of_those_are_not_counted(payments: Api, how: str) -> None:
    ids = register_fleet(payments, FIVE_EACH)
    gone = one_of_each(ids, 20)
    set_heartbeat_age(DUE, gone[:10])
    sweep()
    if how == "heard of since":
        send_heartbeats(payments, gone[:10])
    else:
        ageing.age_expiries(61)
    set_heartbeat_age(DUE, gone[10:16])
    assert (sweep().expired, protected_ids()) == (6, set())


def test_the_unproven_are_neither_counted_nor_held(payments: Api) -> None:
    ids = register_fleet(payments, FIVE_EACH)
    crashed = [f"crash-{number}" for number in range(200)]
    payments.post("/registry/register", [registration("crash", name) for name in crashed])
    set_heartbeat_age(DUE, [*crashed, ids[0]])
    assert sweep().expired == 201


def test_a_due_lease_is_judged_among_those_with_no_longer_ttl(payments: Api) -> None:
    """A hundred of TTL 300 are no reason to let six of TTL 5 go."""
    long = register_fleet(payments, {f"long{number}": 10 for number in range(10)}, ttl_seconds=300)
    short = register_fleet(payments, {f"short{number}": 10 for number in range(3)}, ttl_seconds=5)
    set_heartbeat_age(6.5, [name for name in short if name[-1] in "01"])
    assert (sweep().expired, len(protected_ids())) == (0, 6)
    assert len(long) == 100


def test_those_of_longer_ttl_are_no_reason_to_hold_it(payments: Api) -> None:
    long = register_fleet(payments, {f"long{number}": 10 for number in range(10)}, ttl_seconds=300)
    short = register_fleet(payments, {f"short{number}": 10 for number in range(3)}, ttl_seconds=5)
    set_heartbeat_age(250, long[:50])
    set_heartbeat_age(6.5, short[:1])
    assert (sweep().expired, protected_ids()) == (1, set())


def test_one_service_does_not_hold_another(payments: Api) -> None:
    """All 40 of one service drop, and of another service one, which leaves at its time."""
    ids = register_fleet(payments, {"tenant": 40, "other": 60} | FIVE_EACH)
    set_heartbeat_age(DUE, [*ids[:40], "other-0"])
    sweep()
    assert (expired_ids(), protected_ids()) == ({"other-0"}, set(ids[:40]))
    assert set(Lease.objects.filter(protected_at__isnull=False).values_list("protected_by", flat=True)) == {"service"}


def test_more_than_half_of_a_service_is_held_for_two_minutes(payments: Api) -> None:
    ids = register_fleet(payments, {"small": 8} | FIVE_EACH)
    gone = ids[:5]
    set_heartbeat_age(DUE, gone)
    sweep()
    assert protected_ids() == set(gone)
    set_heartbeat_age(33 + 119, gone)
    assert sweep().expired == 0
    set_heartbeat_age(33 + 121, gone)
    assert (sweep().expired, protected_ids()) == (5, set())


@pytest.mark.parametrize(("size", "count"), [(8, 4), (4, 4), (2, 2), (1, 1)])
def test_half_of_a_service_or_a_service_under_five_is_not_held(payments: Api, size: int, count: int) -> None:
    ids = register_fleet(payments, {"small": size} | FIVE_EACH)
    set_heartbeat_age(DUE, ids[:count])
    assert (sweep().expired, protected_ids()) == (count, set())


@pytest.mark.parametrize("services", [{"a": 3}, {"a": 1, "b": 1, "c": 1}, {"a": 5}, {"a": 3, "b": 3, "c": 2}])
def test_a_small_fleet_of_which_all_are_late_is_held_for_two_minutes(payments: Api, services: dict[str, int]) -> None:
    ids = register_fleet(payments, services)
    set_heartbeat_age(25, ids)
    set_heartbeat_age(DUE, ids[:1])
    assert (sweep().expired, protected_ids()) == (0, {ids[0]})
    set_heartbeat_age(33 + 119, ids)
    assert sweep().expired == 0
    set_heartbeat_age(33 + 121, ids)
    assert (sweep().expired, protected_ids()) == (len(ids), set())


@pytest.mark.parametrize("services", [{"a": 1}, {"a": 2}, {"a": 1, "b": 1}])
def test_of_one_or_two_nobody_can_tell(payments: Api, services: dict[str, int]) -> None:
    ids = register_fleet(payments, services)
    set_heartbeat_age(DUE, ids)
    assert sweep().expired == len(ids)


def test_one_of_a_small_fleet_expires_while_another_beats(payments: Api) -> None:
    ids = register_fleet(payments, {"a": 3})
    set_heartbeat_age(DUE, ids[:2])
    assert sweep().expired == 2


def test_an_explicit_deregistration_is_never_held(payments: Api) -> None:
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


def test_a_hold_by_a_service_goes_on_when_the_fleet_is_held(payments: Api) -> None:
    """When the service's time is over the fleet's rule holds on, and readers are not told twice."""
    ids = register_fleet(payments, {"small": 8} | FIVE_EACH)
    gone = ids[:5]
    set_heartbeat_age(DUE, gone)
    sweep()
    others = one_of_each(ids[8:], 20)
    set_heartbeat_age(DUE, others)
    set_heartbeat_age(33 + 121, gone)
    sweep()
    assert protected_ids() == {*gone, *others}
    assert change_kinds(gone) == {("registered", "protected")}
    set_heartbeat_age(33 + 901, gone)
    assert sweep().expired == 5


def test_an_old_count_judges_nobody(payments: Api) -> None:
    """As of a sweep that was frozen between its transactions."""
    ids = register_fleet(payments, FIVE_EACH)
    set_heartbeat_age(DUE + 10, ids[:1])
    counted = counts.take()
    old = dataclasses.replace(counted, at=counted.at - timedelta(seconds=5))
    assert apply.judge(Judging(old, apply.judgement(old)), ROWS_A_TRANSACTION) == 0
    to_come = dataclasses.replace(counted, at=counted.at + timedelta(days=30))
    assert apply.judge(Judging(to_come, apply.judgement(to_come)), ROWS_A_TRANSACTION) == 0
    assert apply.judge(Judging(counted, apply.judgement(counted)), ROWS_A_TRANSACTION) == 1


def test_a_beat_between_counting_and_judging_counts(payments: Api) -> None:
    ids = register_fleet(payments, FIVE_EACH)
    set_heartbeat_age(DUE, ids[:2])
    counted = counts.take()
    judged = Judging(counted, apply.judgement(counted))
    send_heartbeats(payments, ids[:1])
    assert apply.judge(judged, ROWS_A_TRANSACTION) == 1
    assert expired_ids() == {ids[1]}


def test_who_is_due_only_since_the_count_waits_for_the_next(payments: Api) -> None:
    ids = register_fleet(payments, FIVE_EACH)
    counted = counts.take()
    judged = Judging(counted, apply.judgement(counted))
    just_heard = counted.at - timedelta(seconds=32.999)
    Lease.objects.filter(instance__instance_id=ids[0]).update(heartbeat_at=just_heard)
    time.sleep(0.01)
    assert apply.judge(judged, ROWS_A_TRANSACTION) == 0
    assert sweep().expired == 1


def test_who_was_late_with_too_many_is_held_though_they_are_heard_first(payments: Api) -> None:
    """A partition that heals just when the last of it become due: those that beat first must not make them expire."""
    ids = register_fleet(payments, FIVE_EACH)
    gone = one_of_each(ids, 16)
    set_heartbeat_age(32, gone)
    assert (sweep().expired, protected_ids()) == (0, set())
    send_heartbeats(payments, gone[1:])
    set_heartbeat_age(DUE, gone[:1])
    assert (sweep().expired, protected_ids()) == (0, {gone[0]})
    evidence = Change.objects.get(kind="protected").evidence
    assert evidence is not None
    assert {"rule": "fleet", "counted": 1, "limit": 15, "exceeded_earlier": True} in [
        {name: value for name, value in found.items() if name != "protected_until"} for found in evidence["rules"]
    ]


def test_who_was_not_late_with_too_many_is_not_held(payments: Api) -> None:
    ids = register_fleet(payments, FIVE_EACH)
    gone = one_of_each(ids, 16)
    set_heartbeat_age(25, gone)
    sweep()
    send_heartbeats(payments, gone)
    RegistryState.objects.update(exceeded_limits={"30": ["fleet", moment(13)]})
    set_heartbeat_age(DUE, ids[1:2])
    assert sweep().expired == 1


def test_a_crowd_is_forgotten_when_nobody_of_it_can_be_due_any_more(payments: Api) -> None:
    register_fleet(payments, FIVE_EACH)
    for seconds_ago, kept in ((30, True), (34, False), (-5, False)):
        RegistryState.objects.update(exceeded_limits={"30": ["fleet", moment(seconds_ago)]})
        sweep()
        assert bool(RegistryState.objects.get().exceeded_limits) == kept
