"""Query plans of the hot paths."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection, transaction
from pytest_django import DjangoDbBlocker

from service_registry import changelog, manager
from service_registry.caller import Caller
from service_registry.changelog.history import ALL_ROWS, NAMESPACES, ROWS_OF_SERVICE, page_query, reach_query
from service_registry.changelog.latest import LAST_LIFECYCLE_KINDS, NEWEST_INDEXES
from service_registry.changelog.prune import DELETE, PLAN
from service_registry.changelog.read import READ_AFTER
from service_registry.expiry import counts
from service_registry.manager.batch import Submission, join_columns, submissions_of
from service_registry.manager.heartbeat import RENEW, RENEW_UNCHANGED
from service_registry.manager.owner_usage import COUNT_OF_OWNERS
from service_registry.manager.registration import unchanged
from service_registry.manager.registration.unchanged import FIND_OR_RENEW
from service_registry.queries import as_of, catalogue
from service_registry.queries.filters import resolve_filters
from service_registry.queries.health import INSTANCES_SHOWN, SERVICE_HEALTH
from service_registry.schemas import DiscoveryQuery, Heartbeat
from service_registry.sql import OVERRIDE
from service_registry.sql import SERVICE as SERVICE_TABLE
from tests.client import make_registrations

CALLER = Caller("tester", frozenset({"team"}), frozenset({"register_instance"}))
UP = resolve_filters(DiscoveryQuery(name="web"), ["UP"])


def explain(sql: str, parameters: Any, command: str = "EXPLAIN ") -> str:
    with connection.cursor() as cursor:
        cursor.execute(command + sql, parameters)
        return "\n".join(line for (line,) in cursor.fetchall())


@pytest.fixture(scope="module")
def many_rows(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """10,000 instances in a hundred services, analysed, in a transaction that the tests of this module share."""
    with django_db_blocker.unblock(), transaction.atomic():
        services = [make_registrations(100, f"service-{number}") for number in range(100)]
        for start in range(0, 100, 10):
            manager.register([item for service in services[start : start + 10] for item in service], CALLER)
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")
            # The limit of an operation's transaction, here between two tests.
            cursor.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        connection.check_constraints()  # otherwise after each test, of all rows
        yield
        transaction.set_rollback(True)


@pytest.fixture
def many(many_rows: None, db: None) -> None:
    """The rows of this module. What a test changes is rolled back to a savepoint."""


NO_FENCES = {"epochs": "", "incarnations": "", "statuses": ""}
RENEWALS = pytest.mark.parametrize("renew", [RENEW_UNCHANGED, RENEW], ids=["unchanged", "any"])


def heartbeat_parameters(size: int) -> dict[str, Any]:
    sent = [
        Heartbeat(service_name=f"service-{number % 100}", instance_id=f"i-{number // 100}") for number in range(size)
    ]
    return join_columns(submissions_of(CALLER, sent)) | NO_FENCES


@RENEWALS
def test_heartbeat_reads_rows_by_index(many: None, renew: str) -> None:
    found = explain(renew, heartbeat_parameters(1))
    assert "instance_unique_id" in found
    assert "service_unique_name" in found or "Seq Scan on service_registry_service" in found
    assert "Seq Scan on service_registry_instance" not in found
    assert "Seq Scan on service_registry_lease" not in found


def test_register_again_reads_rows_by_index(many: None) -> None:
    again = submissions_of(CALLER, make_registrations(1, "service-3"))
    found = explain(FIND_OR_RENEW, unchanged.to_parameters(again))
    assert "instance_unique_id" in found
    assert "Seq Scan on service_registry_instance" not in found
    assert "Seq Scan on service_registry_lease" not in found


@RENEWALS
def test_heartbeat_batch_joins_without_nested_comparisons(many: None, renew: str) -> None:
    found = explain(renew, heartbeat_parameters(500), "EXPLAIN (ANALYZE, TIMING OFF) ")
    compared = [int(rows) for rows in re.findall(r"Rows Removed by Join Filter: (\d+)", found)]
    assert sum(compared) < 100_000, found


OVERRIDES = f"""
INSERT INTO {OVERRIDE} (service_id, instance_id, status, actor, reason, created_at)
SELECT s.id, 'gone-' || number, 'DOWN', 'tester', 'gone', now()
FROM {SERVICE_TABLE} s, generate_series(1, 10000) number WHERE s.name = 'service-0'
"""


@RENEWALS
def test_heartbeat_reads_no_overrides_of_other_instances(many: None, renew: str) -> None:
    """The callers of the batch have different groups."""
    with connection.cursor() as cursor:
        cursor.execute(OVERRIDES)
    callers = [Caller("tester", frozenset({"team", f"crew-{number}"}), frozenset()) for number in range(100)]
    sent = [
        Submission(Heartbeat(service_name="service-0", instance_id=f"i-{at}"), caller)
        for at, caller in enumerate(callers)
    ]
    parameters = join_columns(sent) | NO_FENCES
    found = explain(renew, parameters, "EXPLAIN (ANALYZE, TIMING OFF) ")
    rows = [float(count) * int(loops) for count, loops in re.findall(r"actual rows=([\d.]+) loops=(\d+)", found)]
    assert max(rows) < 2000, found


def test_discovery_reads_rows_by_index(many: None) -> None:
    found = explain(catalogue.DISCOVER, {"namespace": "default", "name": "service-3", **UP.parameters})
    assert "instance_unique_id" in found
    assert "Seq Scan on service_registry_instance" not in found


def test_health_of_a_service_reads_rows_by_index(many: None) -> None:
    found = explain(SERVICE_HEALTH, {"namespace": "default", "name": "service-3", "shown": INSTANCES_SHOWN})
    assert "change_by_instance" in found
    assert "Seq Scan on service_registry_instance" not in found
    assert "Seq Scan on service_registry_change" not in found


def test_newest_change_of_a_quiet_service_is_read_by_index(many: None) -> None:
    found = explain(NEWEST_INDEXES, ["default", "service-0"])
    assert "change_by_service" in found
    arrivals = explain(LAST_LIFECYCLE_KINDS, [["default"], ["service-0"], ["i-1"]])
    assert "change_by_instance" in arrivals


def last_pk() -> int:
    return changelog.parse_index(changelog.read_newest_index())[1]


def test_changes_after_an_index_are_read_by_index(many: None) -> None:
    asked = {"pk": last_pk() - 1000, "mark": "00000000", "namespace": None, "services": None, "limit": 500}
    found = explain(READ_AFTER, asked)
    assert "Seq Scan on service_registry_change" not in found
    assert "Index Scan using change_by_instance on service_registry_change n" in found  # the owners at that time


def test_history_page_is_read_by_index(many: None) -> None:
    asked: dict[str, Any] = {"namespaces": None, "service": None, "instance_id": None, "actor": None, "groups": None}
    asked |= {"kinds": ["expired"], "limit": 100, "searched": 20_000, "after": last_pk() - 1000, "stop": 2**63 - 1}
    assert "Seq Scan" not in explain(page_query(ALL_ROWS), asked)
    assert "Seq Scan" not in explain(reach_query(ALL_ROWS), asked)
    of_service = asked | {"namespaces": ["default"], "service": "service-3"}
    assert "change_by_service" in explain(page_query(ROWS_OF_SERVICE), of_service)
    assert "change_by_service" in explain(reach_query(ROWS_OF_SERVICE), of_service)
    assert "change_by_instance" in explain(page_query(ROWS_OF_SERVICE), of_service | {"instance_id": "i-1"})
    steps = explain(NAMESPACES, [], "EXPLAIN (ANALYZE, TIMING OFF) ")
    assert "Seq Scan" not in steps
    assert max(float(rows) for rows in re.findall(r"actual rows=([0-9.]+)", steps)) <= 2  # of 10,000


def test_prune_reads_its_range_by_index(many: None) -> None:
    first = last_pk() - 10_000
    found = explain(DELETE, {"after": first + 100, "upto": first + 200, "until": first + 5000})
    assert "Seq Scan" not in found
    assert "change_by_instance" in found
    assert "change_by_service" in found
    assert found.count("Index Scan using service_registry_change_pkey on service_registry_change c") == 1


def test_past_state_is_read_by_index(many: None) -> None:
    asked = {"at": "2026-01-01T00:00:00Z", "until": last_pk() - 100, "namespace": "default", "name": "service-3"}
    found = explain(as_of.DISCOVER, asked | UP.parameters)
    assert "change_by_instance" in found
    assert "Seq Scan on service_registry_change" not in found


def test_time_is_found_in_the_log_by_few_probes(many: None) -> None:
    found = explain(PLAN, {"older_than_seconds": 0}, "EXPLAIN (ANALYZE, TIMING OFF) ")
    (probes,) = re.findall(
        r"Index Scan using service_registry_change_pkey on service_registry_change c .*loops=(\d+)", found
    )
    assert int(probes) < 20  # of 10,000


def test_quota_is_counted_by_index(many: None) -> None:
    found = explain(COUNT_OF_OWNERS, [["team"]])
    assert "instance_unique_id" in found
    assert "Seq Scan on service_registry_instance" not in found


def test_fleet_is_counted_from_leases_alone(many: None) -> None:
    counted = counts.count_fleet()
    found = explain(counts.COUNT_COHORTS, counted.parameters())
    assert "service_registry_lease" in found
    assert "service_registry_instance" not in found
    assert (sum(cohort.live for cohort in counted.cohorts), counted.due) == (0, 0)
