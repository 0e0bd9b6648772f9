"""What the hot paths cost: statements, and plans."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from service_registry import changelog, manager
from service_registry.caller import Caller
from service_registry.changelog.history import ALL_ROWS, NAMESPACES, ROWS_OF_SERVICE, page_query, reach_query
from service_registry.changelog.latest import LAST_LIFECYCLE_KINDS, NEWEST_INDEXES
from service_registry.changelog.prune import DELETE, PLAN
from service_registry.changelog.read import READ_AFTER
from service_registry.expiry import counts
from service_registry.expiry.sweep import sweep
from service_registry.manager.batch import Submission, join_column, join_columns, submissions_of
from service_registry.manager.heartbeat import RENEW
from service_registry.manager.quota import COUNT_OF_OWNERS
from service_registry.queries import as_of, catalogue
from service_registry.queries.filters import resolve_filters
from service_registry.schemas import DiscoveryQuery, Heartbeat, Registration
from service_registry.sql import OVERRIDE
from service_registry.sql import SERVICE as SERVICE_TABLE
from tests.client import registration

CALLER = Caller("tester", frozenset({"team"}), frozenset({"register_instance"}))
UP = resolve_filters(DiscoveryQuery(name="web"), ["UP"])
TRANSACTION_CONTROL = re.compile(r"BEGIN|COMMIT|SAVEPOINT|RELEASE SAVEPOINT")


def statements(run: Callable[[], Any]) -> list[str]:
    with CaptureQueriesContext(connection) as captured:
        run()
    queries = [query["sql"] for query in captured.captured_queries]
    return [sql for sql in queries if not TRANSACTION_CONTROL.match(sql)]


def fleet(size: int, service_name: str = "web") -> list[Registration]:
    return [Registration(**registration(service_name, f"i-{number}")) for number in range(size)]


def beats(size: int) -> list[Heartbeat]:
    return [Heartbeat(service_name="web", instance_id=f"i-{number}") for number in range(size)]


@pytest.mark.parametrize("size", [1, 500])
def test_heartbeats_take_two_statements(db: None, size: int) -> None:
    manager.register(fleet(size), CALLER)
    assert len(statements(lambda: manager.heartbeat(beats(size), CALLER))) == 2


def test_discovery_takes_two_statements(db: None) -> None:
    manager.register(fleet(3), CALLER)
    assert (
        len(
            statements(
                lambda: catalogue.discover("default", "web", UP, changelog.read_newest_indexes("default", "web"))
            )
        )
        == 2
    )


def test_registering_a_thousand_takes_under_twelve_statements(db: None) -> None:
    manager.register(fleet(300), CALLER)
    mixed = fleet(500)
    mixed[0] = Registration(**registration(instance_id="i-0", port=81))
    mixed += fleet(500, "new")
    assert len(statements(lambda: manager.register(mixed, CALLER))) < 12
    assert len(statements(lambda: manager.register(mixed, CALLER))) <= 5


def plan(sql: str, parameters: Any, explain: str = "EXPLAIN ") -> str:
    with connection.cursor() as cursor:
        cursor.execute(explain + sql, parameters)
        return "\n".join(line for (line,) in cursor.fetchall())


@pytest.fixture
def many(db: None) -> None:
    """10,000 instances in a hundred services, analysed."""
    services = [fleet(100, f"service-{number}") for number in range(100)]
    for start in range(0, 100, 10):
        manager.register([item for service in services[start : start + 10] for item in service], CALLER)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")


def beat_parameters(size: int) -> dict[str, Any]:
    sent = [
        Heartbeat(service_name=f"service-{number % 100}", instance_id=f"i-{number // 100}") for number in range(size)
    ]
    return join_columns(submissions_of(CALLER, sent)) | {"epochs": join_column([None] * size)}


def test_a_heartbeat_finds_its_rows_by_index(many: None) -> None:
    found = plan(RENEW, beat_parameters(1))
    assert "instance_unique_id" in found
    assert "service_unique_name" in found or "Seq Scan on service_registry_service" in found
    assert "Seq Scan on service_registry_instance" not in found
    assert "Seq Scan on service_registry_lease" not in found


def test_five_hundred_heartbeats_are_not_compared_each_with_each(many: None) -> None:
    found = plan(RENEW, beat_parameters(500), "EXPLAIN (ANALYZE, TIMING OFF) ")
    compared = [int(rows) for rows in re.findall(r"Rows Removed by Join Filter: (\d+)", found)]
    assert sum(compared) < 100_000, found


OVERRIDES = f"""
INSERT INTO {OVERRIDE} (service_id, instance_id, status, actor, reason, created_at)
SELECT s.id, 'gone-' || number, 'DOWN', 'tester', 'gone', now()
FROM {SERVICE_TABLE} s, generate_series(1, 10000) number WHERE s.name = 'service-0'
"""


def test_overrides_of_other_instances_cost_a_heartbeat_nothing(many: None) -> None:
    """Of a service that callers with different groups beat for in one batch."""
    with connection.cursor() as cursor:
        cursor.execute(OVERRIDES)
    callers = [Caller("tester", frozenset({"team", f"crew-{number}"}), frozenset()) for number in range(100)]
    sent = [
        Submission(Heartbeat(service_name="service-0", instance_id=f"i-{at}"), caller)
        for at, caller in enumerate(callers)
    ]
    parameters = join_columns(sent) | {"epochs": join_column([None] * 100)}
    found = plan(RENEW, parameters, "EXPLAIN (ANALYZE, TIMING OFF) ")
    rows = [float(count) * int(loops) for count, loops in re.findall(r"actual rows=([\d.]+) loops=(\d+)", found)]
    assert max(rows) < 2000, found


def test_the_groups_of_one_caller_are_sent_once_however_often_it_asks() -> None:
    groups = [f"group-{number}" for number in range(100)]
    sent = [Submission(beat, Caller("tester", frozenset(groups), frozenset())) for beat in beats(500)]
    assert len(join_columns(sent)["group_sets"].split("\x1f")) == 100


def test_discovery_finds_its_rows_by_index(many: None) -> None:
    found = plan(catalogue.DISCOVER, {"namespace": "default", "name": "service-3", **UP.parameters})
    assert "instance_unique_id" in found
    assert "Seq Scan on service_registry_instance" not in found


def test_the_newest_change_of_a_quiet_service_is_found_at_once(many: None) -> None:
    found = plan(NEWEST_INDEXES, ["default", "service-0"])
    assert "change_by_service" in found
    arrivals = plan(LAST_LIFECYCLE_KINDS, [["default"], ["service-0"], ["i-1"]])
    assert "change_by_instance" in arrivals


def last_pk() -> int:
    return changelog.parse_index(changelog.read_newest_index())[1]


def test_reading_on_from_an_index_begins_there(many: None) -> None:
    asked = {"pk": last_pk() - 1000, "mark": "00000000", "namespace": None, "services": None, "limit": 500}
    assert "Seq Scan on service_registry_change" not in plan(READ_AFTER, asked)


def test_history_is_read_from_its_place_on(many: None) -> None:
    asked: dict[str, Any] = {"namespaces": None, "service": None, "instance_id": None, "actor": None}
    asked |= {"kinds": ["expired"], "limit": 100, "searched": 20_000, "after": last_pk() - 1000, "stop": 2**63 - 1}
    assert "Seq Scan" not in plan(page_query(ALL_ROWS), asked)
    assert "Seq Scan" not in plan(reach_query(ALL_ROWS), asked)
    of_service = asked | {"namespaces": ["default"], "service": "service-3"}
    assert "change_by_service" in plan(page_query(ROWS_OF_SERVICE), of_service)
    assert "change_by_service" in plan(reach_query(ROWS_OF_SERVICE), of_service)
    assert "change_by_instance" in plan(page_query(ROWS_OF_SERVICE), of_service | {"instance_id": "i-1"})
    steps = plan(NAMESPACES, [], "EXPLAIN (ANALYZE, TIMING OFF) ")
    assert "Seq Scan" not in steps
    assert max(float(rows) for rows in re.findall(r"actual rows=([0-9.]+)", steps)) <= 2  # of 10,000


def test_pruning_reads_its_range_and_looks_the_others_up(many: None) -> None:
    first = last_pk() - 10_000
    found = plan(DELETE, {"after": first + 100, "upto": first + 200, "until": first + 5000})
    assert "Seq Scan" not in found
    assert "change_by_instance" in found
    assert "change_by_service" in found
    assert found.count("Index Scan using service_registry_change_pkey on service_registry_change c") == 1


def test_a_past_moment_is_read_by_index(many: None) -> None:
    asked = {"at": "2026-01-01T00:00:00Z", "until": last_pk() - 100, "namespace": "default", "name": "service-3"}
    found = plan(as_of.DISCOVER, asked | UP.parameters)
    assert "change_by_instance" in found
    assert "Seq Scan on service_registry_change" not in found


def test_a_time_is_found_in_the_log_without_reading_it(many: None) -> None:
    found = plan(PLAN, {"older_than_seconds": 0}, "EXPLAIN (ANALYZE, TIMING OFF) ")
    (probes,) = re.findall(
        r"Index Scan using service_registry_change_pkey on service_registry_change c .*loops=(\d+)", found
    )
    assert int(probes) < 20  # of 10,000


def test_a_quota_is_counted_by_index(many: None) -> None:
    found = plan(COUNT_OF_OWNERS, [["team"]])
    assert "instance_unique_id" in found
    assert "Seq Scan on service_registry_instance" not in found


def test_the_fleet_is_counted_from_the_leases_alone(many: None) -> None:
    counted = counts.count_fleet()
    found = plan(counts.COUNT_COHORTS, counted.parameters())
    assert "service_registry_lease" in found
    assert "service_registry_instance" not in found
    assert (sum(cohort.live for cohort in counted.cohorts), counted.due) == (0, 0)


def test_a_sweep_that_finds_nobody_due_reads_the_leases_twice(many: None) -> None:
    """To count, and to look for what may be removed."""
    assert sum("service_registry_lease" in sql for sql in statements(sweep)) == 2
