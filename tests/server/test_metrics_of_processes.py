"""Metrics that several processes write: exact sums over those that are killed, and scrapes during an outage."""

from pathlib import Path

from tests.client import registration
from tests.series import Series, parse, value_of
from tests.server.registry import Caller, Registry
from tests.waiting import wait_for

# All instances stop at once: without these settings they would be protected.
WITHOUT_PROTECTION = {f"REGISTRY_{rule}PROTECTION_MAX_SECONDS": "0" for rule in ("", "SERVICE_")}
END_LEASES = """
UPDATE service_registry_registrystate SET window_started_at = window_started_at - interval '2 days';
UPDATE service_registry_lease SET heartbeat_at = heartbeat_at - interval '2 days'
"""
WAVES, INSTANCES_PER_WAVE = 2, 20


def read(caller: Caller) -> dict[Series, float]:
    reply = caller.call("GET", "/metrics")
    assert reply.status == 200
    return parse(reply.body.decode())


def restart_worker(registry: Registry) -> None:
    """Kill the worker and start another, as `celery` of the registry."""
    assert registry.celery is not None
    registry.celery.kill()
    registry.celery.wait()
    registry.celery = registry.start("-m", "celery", "-A", "registry_project", "worker", "-P", "solo")


def count_purged(registry: Registry) -> float:
    return value_of(read(registry.caller("registry-readers")), "registry_changes_total", kind="purged")


def test_counters_are_exact_over_processes_that_are_killed(tmp_path: Path) -> None:
    """Kill one of two web processes, and the worker after each wave of expiries."""
    variables = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics"), "REGISTRY_RETENTION_SECONDS": "1"}
    with Registry(tmp_path, web_processes=2, worker=True, variables=variables | WITHOUT_PROTECTION) as registry:
        for wave in range(WAVES):
            callers = [registry.caller("registry-services", "team", place=place) for place in (0, 1)]
            for number in range(INSTANCES_PER_WAVE):
                key = {"service_name": "web", "instance_id": f"{wave}-{number}"}
                callers[number % 2].call("POST", "/registry/register", registration(**key))
                callers[(number + 1) % 2].call("POST", "/registry/heartbeat", key)
            callers[0].call("POST", "/registry/heartbeat", [{"service_name": "web", "instance_id": "x"}] * 2)
            registry.execute(END_LEASES)
            # A process counts a change just after its commit: one that is killed between the two has not counted it.
            wait_for(lambda: count_purged(registry) == (wave + 1) * INSTANCES_PER_WAVE)  # noqa: B023 - called in this round only
            restart_worker(registry)
            if wave == 0:
                registry.kill_web(1)
        total = WAVES * INSTANCES_PER_WAVE
        readers = [registry.caller("registry-readers", place=place) for place in (0, 1)]
        for found in map(read, readers):
            assert value_of(found, "registry_operations_total", operation="register", outcome="created") == total
            assert value_of(found, "registry_operations_total", operation="heartbeat", outcome="ok") == total
            assert value_of(found, "registry_heartbeats_refused_total", reason="never_registered") == WAVES
            assert value_of(found, "registry_heartbeats_refused_total", reason="invalid") == WAVES
            assert value_of(found, "registry_http_request_duration_seconds_count", operation="register") == total
            for kind in ("registered", "expired", "purged"):
                assert value_of(found, "registry_changes_total", kind=kind) == total
            assert value_of(found, "registry_services") == 1
            assert value_of(found, "registry_instances", status="UP", state="live") == 0


def test_scrape_without_the_database_returns_process_metrics(tmp_path: Path) -> None:
    with Registry(tmp_path, variables={"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics")}) as registry:
        team, reader = registry.caller("registry-services", "team"), registry.caller("registry-readers")
        team.call("POST", "/registry/register", registration())
        before = read(reader)
        registry.postgres.stop()
        assert team.call("POST", "/registry/register", registration()).status == 503
        found = read(reader)
        registry.postgres.start()
        assert value_of(found, "registry_database_up") == 0
        assert not any(name == "registry_instances" for name, _labels in found)
        for outcome in ("created", "ok"):
            series = {"operation": "register", "outcome": outcome}
            assert value_of(found, "registry_operations_total", **series) == value_of(
                before, "registry_operations_total", **series
            )
        assert value_of(found, "registry_operations_total", operation="register", outcome="unavailable") >= 1
