"""Measure sweeps of a large fleet: none due, one due, a fifth late, and a fifth expiring after protection."""

import time
from collections.abc import Callable
from typing import TypeVar

import pytest
from django.db import connection

from service_registry.expiry import counts, lease_decisions, observation_window
from service_registry.expiry.sweep import Report, sweep
from tests import ageing
from tests.fleets import LONG

pytestmark = [pytest.mark.scale, pytest.mark.django_db(transaction=True)]

Result = TypeVar("Result")
INSTANCES_PER_SERVICE = 100
MOST_SWEEPS = 50
SERVICES = """
INSERT INTO service_registry_service (namespace, name, owners)
SELECT 'default', 's' || number, ARRAY['team'] FROM generate_series(1, %s) AS number
"""
# In no order that a plan could profit by, and as wide as instances with metadata are.
INSTANCES = """
INSERT INTO service_registry_instance (service_id, instance_id, host, port, scheme, weight, tags, metadata,
    reported_status, registered_by, status_changes)
SELECT s.id, 'i-' || number, '10.0.0.1', 80, 'http', 100, ARRAY['a', 'b'],
    jsonb_build_object('note', repeat('x', 400)), 'UP', 'tester', 0
FROM service_registry_service s, generate_series(1, %s) AS number ORDER BY random()
"""
LEASES = """
INSERT INTO service_registry_lease (instance_id, heartbeat_at, ttl_seconds, epoch, beats)
SELECT id, clock_timestamp(), (ARRAY[60, 300, 3600])[1 + mod(id, 3)], id, 3 FROM service_registry_instance
"""
AGE = """
UPDATE service_registry_lease SET heartbeat_at = clock_timestamp() - make_interval(secs => 1.1 * ttl_seconds + %s)
WHERE instance_id IN (
    SELECT instance_id FROM service_registry_lease WHERE expired_at IS NULL ORDER BY instance_id LIMIT %s)
"""


def execute(*statements: tuple[str, list[int]]) -> None:
    """Run statements without the deadline that other statements have."""
    with connection.cursor() as cursor:
        kept, cursor.connection.deadline_seconds = cursor.connection.deadline_seconds, None
        for statement, parameters in statements:
            cursor.execute(statement, parameters)
        cursor.connection.deadline_seconds = kept


def print_time(what: str, run: Callable[[], Result]) -> Result:
    began = time.perf_counter()
    result = run()
    print(f"  {what}: {(time.perf_counter() - began) * 1000:,.0f} ms")
    return result


def age(count: int, seconds: int) -> None:
    execute((AGE, [seconds, count]))
    ageing.set_window_age(LONG)


def sweep_until_protected(count: int) -> list[Report]:
    """Sweep until `count` leases are protected, and pulse meanwhile. A sweep decides for five seconds at most."""
    pulse = observation_window.Pulse()
    reports: list[Report] = []
    while sum(report.protected for report in reports) < count and len(reports) < MOST_SWEEPS:
        pulse.record()
        reports.append(sweep(between=pulse.record))
    return reports


@pytest.mark.parametrize("size", [10_000, 200_000])
def test_sweep_of_a_large_fleet(size: int) -> None:
    execute((SERVICES, [size // INSTANCES_PER_SERVICE]), (INSTANCES, [INSTANCES_PER_SERVICE]), (LEASES, []))
    execute(("ANALYZE", []))
    print(f"\n{size:,} leases")
    age(0, 0)
    assert print_time("a sweep that finds none", sweep).expired == 0
    age(1, 1)
    assert print_time("a sweep that finds one", sweep).expired == 1
    late = size // 5
    age(late, 1)
    counted = print_time("to count the fleet of which a fifth is late", counts.count_fleet)
    assert counted.due == late
    print_time("to count the services of those", lambda: lease_decisions.build_protection(counted))
    reports = print_time(f"to protect those {late:,}", lambda: sweep_until_protected(late))
    assert [sum(report.expired for report in reports), sum(report.protected for report in reports)] == [0, late]
    print(f"  sweeps for that: {len(reports)}")
    print_time("a sweep while they are protected", sweep)
    age(late, 902)
    report = print_time("a sweep in which a twentieth expires", sweep)
    assert 0 < report.expired <= size // 20
