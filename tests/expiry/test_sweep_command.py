"""`manage.py sweep`: its output and its effects."""

import re
from datetime import datetime, timedelta
from typing import Any

from django.db.models import F

from service_registry.expiry.evidence import format_rfc3339
from service_registry.models import Change, Instance, Lease, RegistryState
from tests import ageing
from tests.client import Api, registration
from tests.commands import run
from tests.fleets import protected_ids, register_fleet, send_heartbeats, set_heartbeat_age


def test_sweep_prints_what_it_did(payments: Api) -> None:
    payments.register(instance_id="dead")
    ageing.age_leases(60)
    payments.register(instance_id="fresh")
    assert "1 expired, 0 protected, 0 purged, 0 overrides ended" in run("sweep")
    assert payments.listed() == ["fresh"]


def test_dry_run_prints_expiries_and_changes_nothing(payments: Api) -> None:
    payments.register(instance_id="dead")
    ageing.age_leases(60)
    payments.register(instance_id="fresh")
    changes = Change.objects.count()
    output = run("sweep", "--dry-run")
    assert "Expiry runs. The observation window started at" in output
    assert "default/web/dead would expire: last heartbeat" in output
    assert (
        "In all 1 would expire, 0 would stay past their deadline, 0 rows would be purged and 0 overrides would end."
        in output
    )
    assert "fresh" not in output
    assert (Change.objects.count(), Lease.objects.filter(expired_at__isnull=False).count()) == (changes, 0)


def test_dry_run_without_pulses_says_that_nothing_expires(payments: Api) -> None:
    payments.register(instance_id="dead")
    ageing.age_leases(60)
    ageing.interrupt_observation(6)
    output = run("sweep", "--dry-run")
    assert "Nothing expires: no web process has pulsed since" in output
    assert "default/web/dead stays listed while nothing expires" in output
    assert "In all 0 would expire, 1 would stay past their deadline, 0 rows would be purged" in output


def test_dry_run_counts_the_rows_to_purge(payments: Api, settings: Any) -> None:
    payments.register()
    ageing.age_leases(60)
    run("sweep")
    ageing.age_expiries(settings.REGISTRY_RETENTION_SECONDS + 5)
    assert "1 rows would be purged" in run("sweep", "--dry-run")
    assert "1 purged" in run("sweep")
    assert not Instance.objects.exists()


def test_dry_run_prints_more_than_a_page(payments: Api) -> None:
    payments.post("/registry/register", [registration(instance_id=f"web-{number}") for number in range(501)])
    ageing.age_leases(60)
    assert run("sweep", "--dry-run").count("would expire:") == 501


def test_dry_run_names_the_rule_that_protects_or_would_protect(payments: Api) -> None:
    ids = register_fleet(payments, {"small": 8, "other": 40})
    set_heartbeat_age(34, [*ids[:5], ids[20]])
    output = run("sweep", "--dry-run")
    assert "default/small/small-0 would be protected by the rule service until" in output
    assert f"default/other/{ids[20]} would expire" in output
    assert "In all 1 would expire, 5 would stay past their deadline" in output
    run("sweep")
    assert protected_ids() == set(ids[:5])
    output = run("sweep", "--dry-run")
    assert "default/small/small-0 is protected by the rule service until" in output
    until = re.findall(r"small-0 is protected by the rule service until (\S+): .*deadline (\S+)\.", output)[0]
    first, second = (datetime.fromisoformat(text) for text in until)
    assert (first - second).total_seconds() == 120


def test_dry_run_during_a_suspension_reports_it(payments: Api) -> None:
    ids = register_fleet(payments, {"a": 7, "b": 7, "c": 7})
    set_heartbeat_age(60, ids)
    for _ in range(2):
        output = run("sweep", "--dry-run")
        assert "Expiry is suspended: no heartbeat has arrived from the whole fleet since" in output
        assert "In all 0 would expire, 21 would stay" in output
        assert run("sweep").startswith("0 expired, 0 protected")


def test_dry_run_after_the_heartbeat_that_ends_a_suspension_predicts_the_new_window(payments: Api) -> None:
    """The window restarts with the heartbeat, so that no lease is due, as in a real sweep."""
    ids = register_fleet(payments, {"a": 7, "b": 7, "c": 7})
    set_heartbeat_age(60, ids)
    run("sweep")
    send_heartbeats(payments, ids[:1])
    before = RegistryState.objects.get()
    output = run("sweep", "--dry-run")
    assert "(suspension): deadlines count from then" in output
    assert "In all 0 would expire, 0 would stay past their deadline" in output
    assert RegistryState.objects.get().suspended_at == before.suspended_at
    assert run("sweep").startswith("0 expired, 0 protected")


def test_late_dry_run_counts_deadlines_from_the_heartbeat_that_ends_a_suspension(payments: Api) -> None:
    """By the window as the sweep will restart it all leases are due again, and protected."""
    ids = register_fleet(payments, {"a": 7, "b": 7, "c": 7})
    set_heartbeat_age(60, ids)
    run("sweep")
    ageing.age_suspension(200)
    set_heartbeat_age(40, ids[:1])
    RegistryState.objects.update(window_started_at=F("suspended_at"))
    heartbeat_at = Lease.objects.get(instance__instance_id=ids[0]).heartbeat_at
    output = run("sweep", "--dry-run")
    deadline = format_rfc3339(heartbeat_at + timedelta(seconds=33))
    assert output.count(f"deadline {deadline}") == output.count("would be protected by the rule fleet until") == 21
    assert run("sweep").startswith("0 expired, 21 protected")


def test_dry_run_prints_the_instances_that_wait(payments: Api) -> None:
    ids = register_fleet(payments, {"small": 30})
    set_heartbeat_age(33 + 901, ids)
    output = run("sweep", "--dry-run")
    assert output.count("would expire:") == 10
    assert output.count("would wait, because enough protections end in one sweep") == 20
