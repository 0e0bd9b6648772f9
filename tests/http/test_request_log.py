"""The request log: which requests get a line, what is kept of a request, and request ids."""

import re
from collections import Counter
from typing import Any

import pytest
from django.conf import LazySettings

from service_registry.http.request_log import RequestLogEntry, choose_request_id, is_logged


def entry(operation: str = "register", method: str = "POST", **fields: Any) -> RequestLogEntry:
    return RequestLogEntry(operation=operation, route=None, method=method, request_id="id-1", **fields)


def done(operation: str, method: str = "GET", **fields: Any) -> RequestLogEntry:
    return entry(operation, method, **{"status": 200, "outcome": "ok"} | fields)


@pytest.mark.parametrize("operation", ["livez", "readyz", "metrics", "unknown"])
def test_probe_is_logged_only_when_it_fails(operation: str) -> None:
    assert not is_logged(done(operation))
    assert is_logged(entry(operation, "GET", status=404, outcome="not_found"))
    assert is_logged(entry(operation, "GET", status=503, outcome="unavailable"))


@pytest.mark.parametrize(
    ("setting", "unchanged", "changed"), [("all", True, True), ("errors", False, False), ("changes", False, True)]
)
def test_heartbeat_is_logged_by_the_setting(
    settings: LazySettings, setting: str, unchanged: bool, changed: bool
) -> None:
    settings.REGISTRY_LOG_HEARTBEATS = setting
    array = {"items": 2, "outcome": None, "item_outcomes": Counter(ok=2)}
    assert is_logged(done("heartbeat", "POST", unchanged=1)) == unchanged
    assert is_logged(done("heartbeat", "POST", unchanged=0)) == changed
    assert is_logged(done("heartbeat", "POST", unchanged=2, **array)) == unchanged
    assert is_logged(done("heartbeat", "POST", unchanged=1, **array)) == changed
    assert is_logged(done("heartbeat", "POST", **array | {"item_outcomes": Counter(ok=1, instance_not_found=1)}))
    assert is_logged(entry("heartbeat", status=404, outcome="instance_not_found"))
    assert is_logged(entry("heartbeat", status=500, outcome="internal"))


@pytest.mark.parametrize("operation", ["list", "discover", "instance", "watch", "changes"])
@pytest.mark.parametrize(("setting", "logged"), [("errors", False), ("all", True)])
def test_read_is_logged_by_the_setting_or_when_it_fails(
    settings: LazySettings, operation: str, setting: str, logged: bool
) -> None:
    settings.REGISTRY_LOG_READS = setting
    assert is_logged(done(operation)) == logged
    assert is_logged(done(operation, outcome="too_slow"))
    assert is_logged(done(operation, error=OSError()))
    assert is_logged(entry(operation, "GET", status=404, outcome="service_not_found"))


@pytest.mark.parametrize("operation", ["register", "deregister", "override", "admin", "oidc"])
def test_other_request_is_always_logged(operation: str) -> None:
    assert is_logged(done(operation))


def test_body_leaves_its_length_or_its_names() -> None:
    array = entry()
    array.note_body([{"service_name": "web"}, 7])
    assert (array.items, array.service_name) == (2, None)
    single = entry()
    single.note_body({"namespace": None, "service_name": "web", "instance_id": 7, "host": "10.0.0.1"})
    assert (single.items, single.namespace, single.service_name, single.instance_id) == (None, None, "web", None)
    neither = entry()
    neither.note_body("web")
    assert (neither.items, neither.service_name) == (None, None)


def test_response_keeps_the_outcomes_of_its_items() -> None:
    array = entry(item_outcomes=Counter(ok=1, invalid=2))
    array.note_response(200, "ok")
    assert (array.status, array.outcomes) == (200, {"ok": 1, "invalid": 2})
    single = entry()
    single.note_response(201, "created")
    assert (single.status, single.outcomes) == (201, {"created": 1})
    refused = entry()
    refused.note_problem(503, {"code": "unavailable"})
    refused.note_response(503, "ok")
    assert (refused.status, refused.outcome) == (503, "unavailable")


def test_problem_is_the_outcome_of_every_item() -> None:
    refused = entry("heartbeat", item_outcomes=Counter(ok=3), items=3)
    refused.note_problem(503, {"code": "unavailable"})
    assert (refused.status, refused.outcomes, refused.refusals) == (503, {"unavailable": 3}, {"unavailable": 3})
    superseded = entry("heartbeat")
    superseded.note_problem(409, {"code": "lease_superseded", "reason": "epoch"})
    assert (superseded.outcomes, superseded.refusals) == ({"lease_superseded": 1}, {"epoch": 1})
    registration = entry()
    registration.note_problem(400, {"code": "invalid"})
    assert (registration.outcomes, registration.refusals) == ({"invalid": 1}, None)


def test_slow_client_replaces_the_outcomes_of_a_read() -> None:
    read = done("list")
    read.note_slow_client()
    assert read.outcomes == {"too_slow": 1}


@pytest.mark.parametrize("sent", ["a", "A.z_0:9-", "x" * 128])
def test_safe_id_is_kept(sent: str) -> None:
    assert choose_request_id(sent) == sent


@pytest.mark.parametrize("sent", ["", "x" * 129, "a b", "a\n", "\x1b[31m", "é", 'a"b', "a,b"])
def test_other_text_is_replaced_by_a_random_id(sent: str) -> None:
    ids = {choose_request_id(sent) for _ in range(2)}
    assert len(ids) == 2
    assert all(re.fullmatch(r"[0-9a-f]{32}", each) for each in ids)
