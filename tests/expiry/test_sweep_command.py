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
    payments.register(instance_id="silent")
    ageing.age_leases(60)
    payments.register(instance_id="fresh")
    assert "1 expired, 0 protected, 0 purged, 0 overrides ended" in run("sweep")
    assert payments.listed() == ["fresh"]


def test_dry_run_prints_expiries_and_changes_nothing(payments: Api) -> None:
    payments.register(instance_id="silent")
    ageing.age_leases(60)
    payments.register(instance_id="fresh")
    changes = Change.objects.count()
    said = run("sweep", "--dry-run")
    assert "Expiry runs. The observation window started at" in said
    assert "default/web/silent would expire: last heartbeat" in said
    assert "A sweep would expire 1 instances, keep 0 that are past their deadline, purge 0 and end 0 overrides." in said
    assert "fresh" not in said
    assert (Change.objects.count(), Lease.objects.filter(expired_at__isnull=False).count()) == (changes, 0)


def test_dry_run_without_pulses_says_that_nothing_expires(payments: Api) -> None:
    payments.register(instance_id="silent")
    ageing.age_leases(60)
    ageing.interrupt_observation(6)
    said = run("sweep", "--dry-run")
    assert "Nothing expires: no web process has pulsed since" in said
    assert "default/web/silent stays listed while nothing expires" in said
    assert "A sweep would expire 0 instances, keep 1 that are past their deadline, purge 0" in said


def test_dry_run_counts_the_rows_to_purge(payments: Api, settings: Any) -> None:
    payments.register()
    ageing.age_leases(60)
    run("sweep")
    ageing.age_expiries(settings.REGISTRY_RETENTION_SECONDS + 5)
    assert "purge 1 and end" in run("sweep", "--dry-run")
    assert "1 purged" in run("sweep")
    assert not Instance.objects.exists()


def test_dry_run_prints_more_than_a_page(payments: Api) -> None:
    payments.post("/registry/register", [registration(instance_id=f"web-{number}") for number in range(501)])
    ageing.age_leases(60)
    assert run("sweep", "--dry-run").count("would expire:") == 501


def test_dry_run_names_the_rule_that_protects_or_would_protect(payments: Api) -> None:
    ids = register_fleet(payments, {"small": 8, "other": 40})
    set_heartbeat_age(34, [*ids[:5], ids[20]])
    said = run("sweep", "--dry-run")
    assert "default/small/small-0 would be protected by the rule service until" in said
    assert f"default/other/{ids[20]} would expire" in said
    assert "A sweep would expire 1 instances, keep 5 that are past their deadline" in said
    run("sweep")
    assert protected_ids() == set(ids[:5])
    said = run("sweep", "--dry-run")
    assert "default/small/small-0 is protected by the rule service until" in said
    until = re.findall(r"small-0 is protected by the rule service until (\S+): .*deadline (\S+)\.", said)[0]
    first, second = (datetime.fromisoformat(text) for text in until)
    assert (first - second).total_seconds() == 120


def test_dry_run_during_a_suspension_says_so(payments: Api) -> None:
    ids = register_fleet(payments, {"a": 7, "b": 7, "c": 7})
    set_heartbeat_age(60, ids)
    for _ in range(2):
        said = run("sweep", "--dry-run")
        assert "Expiry is suspended: no heartbeat has arrived from the whole fleet since" in said
        assert "would expire 0 instances, keep 21" in said
        assert run("sweep").startswith("0 expired, 0 protected")


def test_dry_run_after_the_heartbeat_that_ends_a_suspension_predicts_the_new_window(payments: Api) -> None:
    """The window restarts with the heartbeat, so that no lease is due, as in a real sweep."""
    ids = register_fleet(payments, {"a": 7, "b": 7, "c": 7})
    set_heartbeat_age(60, ids)
    run("sweep")
    send_heartbeats(payments, ids[:1])
    before = RegistryState.objects.get()
    said = run("sweep", "--dry-run")
    assert "(suspension): deadlines count from then" in said
    assert "A sweep would expire 0 instances, keep 0 that are past their deadline" in said
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
    said = run("sweep", "--dry-run")
    deadline = format_rfc3339(heartbeat_at + timedelta(seconds=33))
    assert said.count(f"deadline {deadline}") == said.count("would be protected by the rule fleet until") == 21
    assert run("sweep").startswith("0 expired, 21 protected")


def test_dry_run_prints_the_instances_that_wait(payments: Api) -> None:
    ids = register_fleet(payments, {"small": 30})
    set_heartbeat_age(33 + 901, ids)
    said = run("sweep", "--dry-run")
    assert said.count("would expire:") == 10
    assert said.count("would wait, because enough protections end in one sweep") == 20
