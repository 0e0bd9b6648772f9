"""Permanent instances outlive every rule of expiry, and count in none."""

from datetime import timedelta

from django.db.models import F
from django.db.models.functions import Now

from service_registry.expiry import observation_window
from service_registry.expiry.counts import count_fleet, count_groups, count_services
from service_registry.expiry.dry_run import predict, read_outlook
from service_registry.expiry.sweep import sweep
from service_registry.models import Change, Lease, RegistryState
from tests import ageing
from tests.client import Api, registration
from tests.fleets import change_kinds, expired_ids, register_fleet, send_heartbeats, set_heartbeat_age

PERMANENT = ["printer-1", "printer-2"]
HOUR = 3600
TWENTY = {"a": 7, "b": 7, "c": 6}


def register_permanent(api: Api) -> None:
    """Register permanent instances, one of which has sent a heartbeat."""
    api.post("/registry/register", [registration("printer", name, lease="none") for name in PERMANENT])
    send_heartbeats(api, PERMANENT[1:])


def assert_untouched(api: Api) -> None:
    assert api.listed("printer") == PERMANENT
    assert change_kinds(PERMANENT) == {("registered",)}


def test_permanent_instance_survives_a_day_of_sweeps(payments: Api) -> None:
    register_permanent(payments)
    payments.register("web", "leased", ttl_seconds=86400 // 2)
    expired = 0
    for hour in range(1, 25):
        Lease.objects.update(heartbeat_at=F("heartbeat_at") - timedelta(seconds=HOUR))
        ageing.set_window_age(hour * HOUR)
        if hour % 6 == 0:  # no web process pulsed for a while: the window restarts, and moves the deadlines
            ageing.interrupt_observation(60)
            observation_window.Pulse().record()
            assert RegistryState.objects.get().window_reason == "gap"
            sweep()
            ageing.set_window_age(hour * HOUR)
        expired += sweep().expired
    assert (expired, expired_ids()) == (1, {"leased"})
    assert_untouched(payments)


def test_permanent_instance_survives_a_suspension_and_the_expiry_after_it(payments: Api) -> None:
    ids = register_fleet(payments, TWENTY)
    register_permanent(payments)
    set_heartbeat_age(60, [*ids, *PERMANENT])
    for seconds in (0, 600, 2900):
        ageing.age_suspension(seconds)
        assert sweep().expired == 0
        assert RegistryState.objects.get().suspended_at
    for hour in range(24):
        ageing.age_suspension(HOUR)
        ageing.set_protection_age(hour * HOUR)
        ageing.set_window_age(hour * HOUR)
        sweep()
    assert expired_ids() == set(ids)
    assert_untouched(payments)


def test_permanent_instance_survives_a_clock_that_is_set_back(payments: Api) -> None:
    register_permanent(payments)
    ageing.set_clock_back(86400)
    observation_window.Pulse().record()
    sweep()
    assert_untouched(payments)


def test_permanent_instances_are_in_no_count(payments: Api) -> None:
    ids = register_fleet(payments, {"web": 3})
    register_permanent(payments)
    set_heartbeat_age(86400, [*ids, *PERMANENT])
    fleet = count_fleet()
    assert [(cohort.ttl_seconds, cohort.live, cohort.late) for cohort in fleet.cohorts] == [(30, 3, 3)]
    assert [(group.ttl_seconds, group.size) for group in count_groups(fleet)] == [(30, 3)]
    assert (fleet.due, count_services()) == (3, 1)
    assert {prediction.lease.instance_id for prediction in predict(read_outlook())} == set(ids)


def test_heartbeats_of_permanent_instances_end_no_suspension(payments: Api) -> None:
    ids = register_fleet(payments, TWENTY)
    register_permanent(payments)
    set_heartbeat_age(60, ids)
    sweep()
    assert RegistryState.objects.get().suspended_at
    Lease.objects.filter(ttl_seconds=None).update(heartbeat_at=Now())
    sweep()
    assert RegistryState.objects.get().suspended_at
    send_heartbeats(payments, PERMANENT)
    sweep()
    assert RegistryState.objects.get().suspended_at


def test_permanent_instances_do_not_make_a_fleet_that_is_quiet(payments: Api) -> None:
    names = [f"{service}-{number}" for service, size in TWENTY.items() for number in range(size)]
    items = [registration(name.partition("-")[0], name, lease="none") for name in names]
    payments.post("/registry/register", items)
    send_heartbeats(payments, names)
    payments.register("web", "web-1", ttl_seconds=30)
    set_heartbeat_age(86400, [*names, "web-1"])
    assert sweep().expired == 1
    assert RegistryState.objects.get().suspended_at is None
    assert not Change.objects.filter(kind="protected").exists()
