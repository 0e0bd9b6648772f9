"""Heartbeats write no index: PostgreSQL counts each as a HOT update."""

import time
from pathlib import Path

from tests.client import registration
from tests.server.registry import Registry
from tests.waiting import wait_for

LEASES = 500
ROUNDS = 20
COUNTERS = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'service_registry_lease'"


def test_heartbeats_over_http_are_hot_updates(tmp_path: Path) -> None:
    with Registry(tmp_path) as registry:
        team = registry.caller("registry-services", "team")
        names = [f"i-{number}" for number in range(LEASES)]
        team.call("POST", "/registry/register", [registration("web", name, ttl_seconds=3600) for name in names])
        beats = [{"service_name": "web", "instance_id": name} for name in names]
        for _ in range(ROUNDS):
            reply = team.call("POST", "/registry/heartbeat", beats)
            assert {result["status"] for result in reply.json["results"]} == {200}
            # A connection reports its counters at most once a second, when it is idle.
            time.sleep(0.05)

        def read_counters() -> tuple[int, int] | None:
            team.call("POST", "/registry/heartbeat", {"service_name": "web", "instance_id": "i-0"})
            updated, hot = registry.sql(COUNTERS)[0]
            return (updated, hot) if updated >= LEASES * ROUNDS else None

        updated, hot = wait_for(read_counters)
        print(f"{hot} of {updated} updates of leases were HOT")
        assert hot / updated > 0.95
