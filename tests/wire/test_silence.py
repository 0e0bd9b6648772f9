"""An instance that never beats is off the list in time, with the worker and without it."""

import time
from pathlib import Path

import pytest

from tests.client import registration
from tests.wire.running import Running, wait_for

pytestmark = pytest.mark.wire

TTL_SECONDS = 5
GRACE_SECONDS = 1  # at least a second where 10 % would be less
SWEEP_SECONDS = 5


@pytest.mark.parametrize("worker", [True, False], ids=["worker", "no worker"])
def test_the_only_instance_falls_silent_and_is_off_the_list_in_time(tmp_path: Path, worker: bool) -> None:
    with Running(tmp_path, worker=worker) as registry:
        team = registry.caller("registry-services", "team")
        body = registration(ttl_seconds=TTL_SECONDS)
        assert team.call("POST", "/registry/register", body).status == 201
        registered = time.monotonic()

        def gone() -> bool:
            return bool(team.call("GET", "/registry/services/web").json["instances"] == [])

        wait_for(gone, TTL_SECONDS + GRACE_SECONDS + SWEEP_SECONDS)
        passed = time.monotonic() - registered
        print(f"off the list after {passed:.1f} s of TTL {TTL_SECONDS} s, worker: {worker}")
        assert passed > TTL_SECONDS
        ((evidence,),) = registry.sql("SELECT evidence->>'process' FROM service_registry_change WHERE kind = 'expired'")
        sweeper = registry.celery or registry.web[0]
        assert evidence.endswith(f":{sweeper.pid}")
