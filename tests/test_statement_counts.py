"""The number of statements that the hot paths run."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection

from service_registry import changelog, manager
from service_registry.caller import Caller
from service_registry.expiry.sweep import sweep
from service_registry.manager.batch import Submission, join_columns
from service_registry.queries import catalogue
from service_registry.queries.filters import resolve_filters
from service_registry.schemas import DiscoveryQuery, Heartbeat, Registration
from tests.client import make_registrations, registration

CALLER = Caller("tester", frozenset({"team"}), frozenset({"register_instance"}))
UP = resolve_filters(DiscoveryQuery(name="web"), ["UP"])
TRANSACTION_CONTROL = re.compile(r"BEGIN|SET LOCAL|COMMIT|SAVEPOINT|RELEASE SAVEPOINT")


def capture_statements(run: Callable[[], Any]) -> list[str]:
    """Return the statements of a call, without those that begin and end transactions."""
    statements: list[str] = []

    def capture(execute: Callable[..., Any], sql: str, *arguments: Any) -> Any:
        statements.append(sql)
        return execute(sql, *arguments)

    with connection.execute_wrapper(capture):
        run()
    return [sql for sql in statements if not TRANSACTION_CONTROL.match(sql)]


def make_heartbeats(size: int) -> list[Heartbeat]:
    return [Heartbeat(service_name="web", instance_id=f"i-{number}") for number in range(size)]


@pytest.mark.parametrize("size", [1, 500])
def test_heartbeat_batch_runs_one_statement(db: None, size: int) -> None:
    manager.register(make_registrations(size), CALLER)
    assert len(capture_statements(lambda: manager.heartbeat(make_heartbeats(size), CALLER))) == 1


def test_discovery_runs_two_statements(db: None) -> None:
    manager.register(make_registrations(3), CALLER)

    def discover() -> None:
        catalogue.discover("default", "web", UP, changelog.read_newest_indexes("default", "web"))

    assert len(capture_statements(discover)) == 2


def test_register_batch_of_a_thousand_runs_ten_statements(db: None) -> None:
    manager.register(make_registrations(300), CALLER)
    mixed = make_registrations(500)
    mixed[0] = Registration(**registration(instance_id="i-0", port=81))
    mixed += make_registrations(500, "new")
    assert len(capture_statements(lambda: manager.register(mixed, CALLER))) == 10
    assert len(capture_statements(lambda: manager.register(mixed, CALLER))) == 1


def test_repeated_registration_of_permanent_instances_runs_one_statement(db: None) -> None:
    items = [Registration(**registration(instance_id=f"i-{number}", lease="none")) for number in range(3)]
    manager.register(items, CALLER)
    assert len(capture_statements(lambda: manager.register(items, CALLER))) == 1


def test_heartbeat_batch_of_one_caller_sends_its_groups_once() -> None:
    groups = [f"group-{number}" for number in range(100)]
    sent = [Submission(item, Caller("tester", frozenset(groups), frozenset())) for item in make_heartbeats(500)]
    assert len(join_columns(sent)["group_sets"].split("\x1f")) == 100


def test_sweep_without_due_leases_reads_leases_twice(db: None) -> None:
    """Once to count, and once to look for rows to purge."""
    manager.register(make_registrations(100), CALLER)
    assert sum("service_registry_lease" in sql for sql in capture_statements(sweep)) == 2
