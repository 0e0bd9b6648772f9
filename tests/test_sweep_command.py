"""`manage.py sweep`: what it prints, and what it changes."""

import re
from datetime import datetime, timedelta
from typing import Any

from django.db.models import F

from service_registry.expiry.evidence import rfc3339
from service_registry.models import Change, Instance, Lease, RegistryState
from tests import ageing
from tests.client import Api, registration
from tests.commands import run
from tests.fleets import protected_ids, register_fleet, send_heartbeats, set_heartbeat_age


def test_sweep_says_what_it_did(payments: Api) -> None:
    payments.register(instance_id="silent")
    ageing.age_leases(60)
    payments.register(instance_id="fresh")
    assert "1 expired, 0 protected, 0 purged, 0 overrides ended" in run("sweep")
    assert payments.listed() == ["fresh"]


def test_a_dry_sweep_names_whom_it_would_expire_and_changes_nothing(payments: Api) -> None:
    payments.register(instance_id="silent")
    ageing.age_leases(60)
    payments.register(instance_id="fresh")
    changes = Change.objects.count()
    said = run("sweep", "--dry-run")
    assert "The registry hears, without a gap since" in said
    assert "default/web/silent would expire: last heard at" in said
    assert "A sweep would expire 1, keep 0 that are past their deadline, remove 0 and end 0 overrides." in said
    assert "fresh" not in said
    assert (Change.objects.count(), Lease.objects.filter(expired_at__isnull=False).count()) == (changes, 0)


def test_a_dry_sweep_says_that_time_stands_still(payments: Api) -> None:
    payments.register(instance_id="silent")
    ageing.age_leases(60)
    ageing.interrupt_observation(6)
    said = run("sweep", "--dry-run")
    assert "No web process has pulsed since" in said
    assert "default/web/silent is kept while time stands still" in said
    assert "A sweep would expire 0, keep 1 that are past their deadline, remove 0" in said


def test_a_dry_sweep_counts_what_it_would_remove(payments: Api, settings: Any) -> None:
    payments.register()
    ageing.age_leases(60)
    run("sweep")
    ageing.age_expiries(settings.REGISTRY_RETENTION_SECONDS + 5)
    assert "remove 1 and end" in run("sweep", "--dry-run")
    assert "1 purged" in run("sweep")
    assert not Instance.objects.exists()


def test_a_dry_sweep_pages_through_all(payments: Api) -> None:
    payments.post("/registry/register", [registration(instance_id=f"web-{number}") for number in range(501)])
    ageing.age_leases(60)
    assert run("sweep", "--dry-run").count("would expire:") == 501


def test_a_dry_sweep_names_the_rule_that_would_hold_and_the_one_that_does(payments: Api) -> None:
    ids = register_fleet(payments, {"small": 8, "other": 40})
    set_heartbeat_age(34, [*ids[:5], ids[20]])
    said = run("sweep", "--dry-run")
    assert "default/small/small-0 would be held by the rule service until" in said
    assert f"default/other/{ids[20]} would expire" in said
    assert "A sweep would expire 1, keep 5 that are past their deadline" in said
    run("sweep")
    assert protected_ids() == set(ids[:5])
    said = run("sweep", "--dry-run")
    assert "default/small/small-0 is held by the rule service until" in said
    until = re.findall(r"small-0 is held by the rule service until (\S+): .*deadline (\S+)\.", said)[0]
    first, second = (datetime.fromisoformat(text) for text in until)
    assert (first - second).total_seconds() == 120


def test_a_dry_sweep_says_that_the_fleet_is_silent(payments: Api) -> None:
    ids = register_fleet(payments, {"a": 7, "b": 7, "c": 7})
    set_heartbeat_age(60, ids)
    for _ in range(2):
        said = run("sweep", "--dry-run")
        assert "of its whole fleet nobody since" in said
        assert "would expire 0, keep 21" in said
        assert run("sweep").startswith("0 expired, 0 protected")


def test_a_dry_sweep_knows_that_a_heartbeat_has_ended_the_silence(payments: Api) -> None:
    """The window restarts with it then, so that nobody is due: in the dry sweep as in the real one."""
    ids = register_fleet(payments, {"a": 7, "b": 7, "c": 7})
    set_heartbeat_age(60, ids)
    run("sweep")
    send_heartbeats(payments, ids[:1])
    before = RegistryState.objects.get()
    said = run("sweep", "--dry-run")
    assert "(suspension): silence counts from then" in said
    assert "A sweep would expire 0, keep 0 that are past their deadline" in said
    assert RegistryState.objects.get().suspended_at == before.suspended_at
    assert run("sweep").startswith("0 expired, 0 protected")


def test_a_dry_sweep_counts_from_the_heartbeat_that_ended_the_silence(payments: Api) -> None:
    """One who looks late: by the window as the sweep will restart it all are due again, and are to be held."""
    ids = register_fleet(payments, {"a": 7, "b": 7, "c": 7})
    set_heartbeat_age(60, ids)
    run("sweep")
    ageing.age_suspension(200)
    set_heartbeat_age(40, ids[:1])
    RegistryState.objects.update(window_started_at=F("suspended_at"))
    observed_at = Lease.objects.get(instance__instance_id=ids[0]).heartbeat_at
    said = run("sweep", "--dry-run")
    deadline = rfc3339(observed_at + timedelta(seconds=33))
    assert said.count(f"deadline {deadline}") == said.count("would be held by the rule fleet until") == 21
    assert run("sweep").startswith("0 expired, 21 protected")


def test_a_dry_sweep_says_who_waits_since_enough_leave(payments: Api) -> None:
    ids = register_fleet(payments, {"small": 30})
    set_heartbeat_age(33 + 901, ids)
    said = run("sweep", "--dry-run")
    assert said.count("would expire:") == 10
    assert said.count("would wait, as enough leave in one sweep") == 20
