"""Metrics: values, permissions and documentation."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
from django.conf import LazySettings
from django.test import Client

from registry_project.devstack import plan
from service_registry import metrics
from service_registry.choices import Rule
from service_registry.expiry import observation_window
from service_registry.expiry.sweep import sweep
from service_registry.models import RegistryState
from tests.ageing import age_suspension, interrupt_observation
from tests.client import Api, registration
from tests.commands import ROOT
from tests.fleets import register_fleet as proven_fleet
from tests.fleets import set_heartbeat_age
from tests.series import Series, parse, value_of


def scrape() -> dict[Series, float]:
    return parse(metrics.exposition().decode())


class Since:
    """The increase of a counter since this object was created."""

    def __init__(self) -> None:
        self.before = scrape()

    def __call__(self, name: str, **labels: str) -> float:
        return value_of(scrape(), name, **labels) - value_of(self.before, name, **labels)


@pytest.fixture
def since(db: None) -> Since:
    return Since()


def metrics_page(bearer: str | None = None) -> Any:
    headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
    return Client(raise_request_exception=False).get("/metrics", headers=headers)


def test_metrics_without_a_token_are_public_by_setting(db: None, settings: LazySettings) -> None:
    settings.REGISTRY_METRICS_PUBLIC = True
    assert metrics_page()["Content-Type"].startswith("text/plain; version=0.0.4")
    assert metrics_page().status_code == metrics_page("a.b.c").status_code == 200


def test_operations_are_counted_by_item_and_outcome(payments: Api, since: Since) -> None:
    payments.register()
    payments.register()
    payments.post("/registry/register", [registration(), registration(instance_id="x"), {"port": 0}])
    payments.get("/registry/services/web")
    payments.get("/registry/services/nowhere")
    assert since("registry_operations_total", operation="register", outcome="created") == 2
    assert since("registry_operations_total", operation="register", outcome="ok") == 2
    assert since("registry_operations_total", operation="register", outcome="invalid") == 1
    assert since("registry_operations_total", operation="discover", outcome="ok") == 1
    assert since("registry_operations_total", operation="discover", outcome="service_not_found") == 1
    payments.get("/registry/services/web/health?require=9")
    assert since("registry_operations_total", operation="service_health", outcome="not_healthy") == 1
    assert since("registry_http_request_duration_seconds_count", operation="register") == 3
    assert since("registry_http_requests_total", method="POST", operation="register", status="201") == 1


def test_refused_heartbeats_are_counted_by_reason(payments: Api, other_team: Api, since: Since) -> None:
    payments.register()
    payments.heartbeat(epoch=10**9)
    payments.heartbeat(instance_id="nobody")
    items = [{"service_name": "web", "instance_id": name} for name in ("web-1", "x", "y")]
    payments.post("/registry/heartbeat", items)
    other_team.post("/registry/heartbeat", items)
    reasons = {"lease_superseded": 1, "never_registered": 3, "not_owner": 3}
    for reason, count in reasons.items():
        assert since("registry_heartbeats_refused_total", reason=reason) == count
    assert since("registry_operations_total", operation="heartbeat", outcome="ok") == 1


def test_labels_do_not_contain_names_of_clients(payments: Api) -> None:
    payments.register()
    before = set(scrape())
    for name in ("a", "b"):
        payments.client.generic(f"METHOD{name}", f"/registry/{name}")
        payments.client.generic(f"METHOD{name}", f"/registry/services/{name}")
        payments.register(f"service-{name}", f"instance-{name}")
    added = {labels for name, labels in set(scrape()) - before if name == "registry_http_requests_total"}
    assert {dict(labels)["method"] for labels in added} <= {"other"}
    assert len(added) == 2
    assert not any("service-a" in str(labels) or "METHOD" in str(labels) for _name, labels in scrape())


def test_gauges_show_the_state_in_the_database(payments: Api) -> None:
    payments.register()
    payments.register(instance_id="web-2", status="DOWN")
    payments.register("api", "api-1")
    found = scrape()
    assert value_of(found, "registry_database_up") == 1
    assert value_of(found, "registry_services") == 2
    assert value_of(found, "registry_instances", status="UP", state="live") == 2
    assert value_of(found, "registry_instances", status="DOWN", state="live") == 1
    assert len([name for name, _labels in found if name == "registry_instances"]) == 12
    assert 0 <= value_of(found, "registry_sweep_age_seconds") < 3600
    assert 0 <= value_of(found, "registry_observation_age_seconds") < 3600


def test_scrape_without_the_row_of_the_state_has_the_other_gauges(payments: Api) -> None:
    payments.register()
    RegistryState.objects.all().delete()
    found = scrape()
    assert value_of(found, "registry_database_up") == 1
    assert value_of(found, "registry_services") == 1
    assert value_of(found, "registry_instances", status="UP", state="live") == 1
    assert "registry_sweep_age_seconds" not in {name for name, _labels in found}


def test_protected_instances_are_counted_by_rule(
    payments: Api, since: Since, django_capture_on_commit_callbacks: Any
) -> None:
    ids = proven_fleet(payments, {"a": 8, "b": 30})
    set_heartbeat_age(34, ids[:5])
    with django_capture_on_commit_callbacks(execute=True):
        sweep()
    found = scrape()
    assert {rule: value_of(found, "registry_protected_instances", rule=rule) for rule in Rule} == {
        "fleet": 0,
        "small_fleet": 0,
        "service": 5,
        "all_late": 0,
    }
    assert value_of(found, "registry_instances", status="UP", state="protected") == 5
    assert since("registry_protections_total", rule="service") == 5
    assert since("registry_changes_total", kind="protected") == 5


def test_suspension_is_shown_with_its_duration(payments: Api) -> None:
    found = scrape()
    assert (value_of(found, "registry_expiry_suspended"), value_of(found, "registry_expiry_suspended_seconds")) == (
        0,
        0,
    )
    ids = proven_fleet(payments, {"a": 10, "b": 10, "c": 10})
    set_heartbeat_age(60, ids)
    sweep()
    found = scrape()
    assert value_of(found, "registry_expiry_suspended") == 1
    assert 60 <= value_of(found, "registry_expiry_suspended_seconds") < 120
    age_suspension(3600)
    found = scrape()
    assert (value_of(found, "registry_expiry_suspended"), value_of(found, "registry_expiry_suspended_seconds")) == (
        0,
        0,
    )


def test_restart_of_the_observation_window_is_counted_by_reason(db: None, since: Since) -> None:
    pulse = observation_window.Pulse()
    pulse.record()
    interrupt_observation(2)
    pulse.record()
    assert since("registry_observation_window_restarts_total", reason="gap") <= 1
    again = Since()
    interrupt_observation(60)
    pulse.record()
    assert again("registry_observation_window_restarts_total", reason="gap") == 1


def test_empty_file_of_a_killed_process_is_ignored(tmp_path: Path) -> None:
    (tmp_path / f"counter_{os.getpid()}.db").touch()
    assert list(metrics.ProcessCollector(str(tmp_path)).collect()) == []


def test_metrics_directory_of_make_run_starts_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "counter_1.db").touch()
    plan.create_metrics_directory(tmp_path)
    assert os.environ["PROMETHEUS_MULTIPROC_DIR"] == str(tmp_path / "metrics")
    assert list((tmp_path / "metrics").iterdir()) == []


def test_documentation_lists_exactly_the_metrics_of_the_code(db: None) -> None:
    text = (ROOT / "docs" / "metrics.md").read_text()
    documented = re.findall(r"^\| `(registry_\w+)` \| (\w+) \|", text, re.MULTILINE)
    in_code = re.findall(r"^# TYPE (registry_\w+) (\w+)$", metrics.exposition().decode(), re.MULTILINE)
    assert sorted(documented) == sorted(pair for pair in in_code if not pair[0].endswith("_created"))
