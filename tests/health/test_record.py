"""Results become the health of instances, changes, and renewed leases."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from django.db import OperationalError, connection, connections, transaction

from service_registry.expiry.sweep import sweep
from service_registry.health.due import DueCheck, claim_due_checks, follow_registrations
from service_registry.health.record import CheckRun, record, renew
from service_registry.health.result import Cause, Result
from service_registry.health_models import HealthStanding
from service_registry.models import Change, Instance, Lease
from service_registry.sql import HEALTH_STANDING
from tests import ageing
from tests.client import Api

CHECK = {"type": "http", "path": "/health", "interval_seconds": 10, "unhealthy_after": 2, "healthy_after": 2}
RESULTS = {
    "p": Result(Cause.OK, "fine"),
    "w": Result(Cause.TOO_MANY_REQUESTS, "busy"),
    "f": Result(Cause.REFUSED, "refused"),
}


def claim() -> list[DueCheck]:
    """Claim all checks, as if they were due now."""
    follow_registrations()
    HealthStanding.objects.update(due_at=Lease.objects.values("heartbeat_at")[:1])
    return claim_due_checks(1000, {}, 1000)


def run(letters: str) -> None:
    """Record results of all checked instances, one letter after the other."""
    for letter in letters:
        runs = [CheckRun(due, RESULTS[letter], 0.01) for due in claim()]
        record(runs)
        renew(runs)


def discovered(api: Api) -> list[str]:
    """Return the ids that discovery gives to clients who look for traffic."""
    return [instance["instance_id"] for instance in api.get("/registry/services/web").json["instances"]]


def kinds() -> list[tuple[str, Any]]:
    return list(Change.objects.filter(kind="health_changed").order_by("id").values_list("instance__health", "changed"))


def test_instance_is_unknown_before_its_first_result_and_listed(payments: Api) -> None:
    document = payments.register(health_check=CHECK).json
    assert (document["health"], document["status"]) == ("unknown", "UP")
    assert discovered(payments) == ["web-1"]


def test_critical_instance_leaves_discovery_and_comes_back(payments: Api) -> None:
    payments.register(health_check=CHECK)
    run("pf")
    assert discovered(payments) == ["web-1"]
    run("f")
    assert discovered(payments) == []
    run("pp")
    assert discovered(payments) == ["web-1"]
    assert kinds() == [
        ("passing", ["health"]),
        ("critical", ["health", "status"]),
        ("passing", ["health", "status"]),
    ]
    change = Change.objects.filter(instance__health="critical").get()
    assert change.instance is not None
    assert change.evidence is not None
    assert (change.actor, change.instance["status"], change.evidence["cause"]) == ("registry:health", "DOWN", "refused")


def test_results_that_change_nothing_append_nothing(payments: Api) -> None:
    payments.register(health_check=CHECK)
    run("p")
    before = Change.objects.count()
    run("pppfp")
    assert Change.objects.count() == before


def test_warning_stays_in_discovery_and_says_so(payments: Api) -> None:
    payments.register(health_check=CHECK)
    run("w")
    assert discovered(payments) == ["web-1"]
    assert Instance.objects.get().health == "warning"


@pytest.mark.parametrize(("reported", "status"), [("UP", "DOWN"), ("STARTING", "STARTING"), ("OUT_OF_SERVICE",) * 2])
def test_worse_of_reported_status_and_health_counts(payments: Api, reported: str, status: str) -> None:
    payments.register(health_check=CHECK, status=reported)
    run("ff")
    assert payments.register(health_check=CHECK, status=reported).json["status"] == status


def test_override_wins_over_health(payments: Api, operator: Api) -> None:
    payments.register(health_check=CHECK)
    operator.call("PUT", "/registry/instance/web/web-1/status", {"status": "UP", "reason": "checks are wrong"})
    run("ff")
    assert discovered(payments) == ["web-1"]
    assert kinds()[-1] == ("critical", ["health"])


def test_another_process_at_the_id_begins_anew(payments: Api) -> None:
    payments.register(health_check=CHECK)
    run("ff")
    [due] = claim()
    document = payments.register(health_check=CHECK, port=81).json
    assert (document["health"], document["status"]) == ("unknown", "UP")
    record([CheckRun(due, RESULTS["f"], 0.01)])
    assert Instance.objects.get().health == "unknown"
    run("f")
    assert Instance.objects.get().health == "unknown"
    run("f")
    assert Instance.objects.get().health == "critical"


def test_check_ends_with_a_registration_without_it(payments: Api) -> None:
    payments.register(health_check=CHECK)
    run("ff")
    [due] = claim()
    document = payments.register().json
    assert (document["health"], document["status"]) == (None, "UP")
    record([CheckRun(due, RESULTS["f"], 0.01)])
    follow_registrations()
    assert Instance.objects.get().health is None
    assert not HealthStanding.objects.exists()


def test_standing_of_a_deregistered_instance_is_deleted(payments: Api) -> None:
    payments.register(health_check=CHECK)
    [due] = claim()
    payments.deregister()
    record([CheckRun(due, RESULTS["f"], 0.01)])
    follow_registrations()
    assert not HealthStanding.objects.exists()


def test_passing_check_renews_the_lease(payments: Api) -> None:
    payments.register(health_check=CHECK | {"renews": True})
    beats = Lease.objects.get().beats
    run("pwf")
    assert Lease.objects.get().beats == beats + 2


def test_lease_that_checks_renew_expires_only_when_they_fail(payments: Api) -> None:
    payments.register(health_check=CHECK | {"renews": True})
    run("p")
    ageing.age_leases(600)
    assert (sweep().expired, discovered(payments)) == (0, ["web-1"])
    run("f")
    ageing.age_leases(600)
    assert sweep().expired == 0
    run("f")
    ageing.age_leases(600)
    assert (sweep().expired, discovered(payments)) == (1, [])
    run("pp")
    assert discovered(payments) == ["web-1"]
    assert Change.objects.filter(kind="recovered").get().actor == "registry:health"


def test_registration_with_another_check_keeps_what_is_known(payments: Api) -> None:
    payments.register(health_check=CHECK)
    run("ff")
    assert payments.register(health_check=CHECK | {"interval_seconds": 20}).json["health"] == "critical"


def test_check_is_claimed_once(payments: Api) -> None:
    payments.register(health_check=CHECK)
    [due] = claim()
    assert claim_due_checks(1000, {}, 4) == []
    assert (due.check["path"], due.check["timeout_seconds"], due.late) == ("/health", 2, False)


def test_busy_host_gets_no_further_check(payments: Api) -> None:
    payments.register(health_check=CHECK)
    follow_registrations()
    HealthStanding.objects.update(due_at=Lease.objects.values("heartbeat_at")[:1])
    assert claim_due_checks(1000, {"10.0.0.1": 4}, 4) == []
    assert len(claim_due_checks(1000, {"10.0.0.2": 4, "10.0.0.1": 3}, 4)) == 1


def test_checks_of_a_busy_host_wait_for_their_places(payments: Api) -> None:
    for number in range(6):
        payments.register(instance_id=f"web-{number}", health_check=CHECK)
    follow_registrations()
    HealthStanding.objects.update(due_at=Lease.objects.values("heartbeat_at")[:1])
    assert len(claim_due_checks(1000, {}, 4)) == 4
    assert claim_due_checks(1000, {"10.0.0.1": 4}, 4) == []
    assert len(claim_due_checks(1000, {"10.0.0.1": 2}, 4)) == 2


def test_result_is_recorded_once_where_its_transaction_is_repeated(payments: Api) -> None:
    payments.register(health_check=CHECK)
    results = [CheckRun(due, RESULTS["f"], 0.01) for due in claim()]
    record(results)
    record(results)
    assert HealthStanding.objects.get().failures == 1


def test_check_is_due_within_its_interval_after_the_clock_was_set_back(payments: Api) -> None:
    payments.register(health_check=CHECK)
    run("f")
    with connection.cursor() as cursor:
        hour = "interval '1 hour'"
        cursor.execute(f"UPDATE {HEALTH_STANDING} SET due_at = due_at + {hour}, checked_at = checked_at + {hour}")
        follow_registrations()
        cursor.execute(
            f"SELECT count(*) FROM {HEALTH_STANDING} WHERE due_at < clock_timestamp() + interval '10 seconds'"
        )
        assert cursor.fetchone() == (1,)
    run("f")
    assert Instance.objects.get().health == "critical"


@pytest.mark.django_db(transaction=True)
def test_row_that_is_locked_for_long_costs_no_result_of_another_instance() -> None:
    payments = Api("registry-services", "team-payments")
    for name in ("web-1", "web-2"):
        payments.register(instance_id=name, health_check=CHECK)
    run("f")
    results = [CheckRun(due, RESULTS["f"], 0.01) for due in claim()]
    with transaction.atomic(), ThreadPoolExecutor(1) as thread:
        Instance.objects.select_for_update().get(instance_id="web-1")
        with pytest.raises(OperationalError, match="lock timeout"):
            thread.submit(record, results).result()
        thread.submit(partial(record, results, skip_locked=True)).result()
        thread.submit(connections.close_all)
    assert dict(Instance.objects.values_list("instance_id", "health")) == {"web-1": "unknown", "web-2": "critical"}


def test_permanent_instance_is_judged_by_its_check_alone(payments: Api) -> None:
    payments.register(lease="none", health_check=CHECK)
    run("ff")
    ageing.age_leases(86400)
    assert sweep().expired == 0
    assert (discovered(payments), payments.listed()) == ([], ["web-1"])
    run("pp")
    assert discovered(payments) == ["web-1"]


def test_check_that_renewed_until_the_instance_became_permanent_changes_nothing(payments: Api) -> None:
    payments.register(health_check=CHECK | {"renews": True})
    runs = [CheckRun(due, RESULTS["p"], 0.01) for due in claim()]
    payments.register(lease="none", health_check=CHECK)
    record(runs)
    renew(runs)
    lease = Lease.objects.get()
    assert (lease.ttl_seconds, lease.check_failing, payments.listed()) == (None, None, ["web-1"])


def test_claim_that_arrives_late_is_not_used(payments: Api) -> None:
    """The next one may be claimed after three quarters of the interval: the check would run twice within a half."""
    payments.register(health_check=CHECK)
    [due] = claim()
    assert [due.is_usable(seconds) for seconds in (0, 2.5, 2.6)] == [True, True, False]
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT extract(epoch FROM due_at)::float8 - %s FROM {HEALTH_STANDING}", [due.claimed_at])
        assert cursor.fetchone()[0] >= 7.5


def test_checks_after_a_pause_are_spread_over_their_interval(payments: Api) -> None:
    for number in range(20):
        payments.register(instance_id=f"web-{number}", health_check=CHECK)
    follow_registrations()
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {HEALTH_STANDING} SET due_at = statement_timestamp() - interval '60 seconds'")
        claimed = claim_due_checks(1000, {}, 4)
        cursor.execute(
            f"SELECT extract(epoch FROM due_at)::float8 - %s FROM {HEALTH_STANDING}", [claimed[0].claimed_at]
        )
        waits = [wait for (wait,) in cursor.fetchall()]
    assert [due.is_usable(0) for due in claimed] == [False] * 20
    assert 0 <= min(waits) < 5 < max(waits) <= 10
