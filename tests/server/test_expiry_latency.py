"""A dead instance leaves the list, with a worker and without one."""

import time
from pathlib import Path
from typing import Any

import pytest

from tests.client import registration
from tests.server.registry import Registry
from tests.waiting import wait_for

TTL_SECONDS = 5
EXPIRED = """
SELECT evidence->>'process', extract(epoch FROM at - (evidence->>'heartbeat_at')::timestamptz)::float8
FROM service_registry_change WHERE kind = 'expired'
"""


def read_sweep(registry: Registry, after: str = "clock_timestamp() - interval '3 seconds'") -> Any:
    return registry.sql(f"SELECT swept_at FROM service_registry_registrystate WHERE swept_at > {after}")


@pytest.mark.parametrize("killed", [False, True], ids=["worker", "worker killed"])
def test_lone_dead_instance_leaves_the_list_after_its_ttl(tmp_path: Path, killed: bool) -> None:
    with Registry(tmp_path, worker=True) as registry:
        assert registry.celery
        wait_for(lambda: read_sweep(registry))
        if killed:
            registry.celery.kill()
            registry.celery.wait()
        team = registry.caller("registry-services", "team")
        assert team.call("POST", "/registry/register", registration(ttl_seconds=TTL_SECONDS)).status == 201
        registered = time.monotonic()

        def is_off_the_list() -> bool:
            return bool(team.call("GET", "/registry/services/web").json["instances"] == [])

        wait_for(is_off_the_list)
        passed = time.monotonic() - registered
        (listed,) = team.call("GET", "/registry/services").json["services"]
        ((sweeper, by_the_database),) = registry.sql(EXPIRED)
        print(f"off the list after {passed:.1f} s (expired after {by_the_database:.1f} s) of TTL 5 s, killed: {killed}")
        assert passed > TTL_SECONDS
        assert listed["instances"] == []
        assert sweeper.endswith(f":{registry.web[0].pid if killed else registry.celery.pid}")
