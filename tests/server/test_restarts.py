"""A process that starts again at the same host and port, over HTTP, beside the last calls of the old one."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.client import registration
from tests.server.registry import Registry

TRIALS = 30
CALLS_AFTERWARDS = 3
KEY = {"service_name": "web", "instance_id": "web-1"}
LATE_CALLS = {
    "/registry/heartbeat": KEY | {"incarnation": "old", "status": "OUT_OF_SERVICE"},
    "/registry/deregister": KEY | {"incarnation": "old"},
}


def test_late_calls_of_the_old_process_never_reach_the_new_one(tmp_path: Path) -> None:
    """Single requests: heartbeats and registrations join micro-batches, deregistrations run beside them."""
    statuses: Counter[tuple[str, int]] = Counter()
    with Registry(tmp_path) as registry, ThreadPoolExecutor(3) as threads:
        new = registry.caller("registry-services", "team", subject="new")
        old = {path: registry.caller("registry-services", "team", subject="old") for path in LATE_CALLS}

        def start(incarnation: str, registered: threading.Event) -> None:
            body = registration(incarnation=incarnation, ttl_seconds=3600)
            assert new.call("POST", "/registry/register", body).status in {200, 201}
            registered.set()

        def stop(path: str, registered: threading.Event) -> None:
            afterwards = 0
            while afterwards < CALLS_AFTERWARDS:
                afterwards += registered.is_set()
                statuses[path, old[path].call("POST", path, LATE_CALLS[path]).status] += 1

        wrong = 0
        for _ in range(TRIALS):
            start("old", threading.Event())
            registered = threading.Event()
            stopping = [threads.submit(stop, path, registered) for path in LATE_CALLS]
            threads.submit(start, "new", registered).result(60)
            for each in stopping:
                each.result(60)
            beat = new.call("POST", "/registry/heartbeat", KEY | {"incarnation": "new"})
            wrong += (beat.status, beat.json.get("status")) != (200, "UP")
    print(f"\n{wrong} wrong beside {TRIALS} restarts; the old process: {dict(statuses)}")
    assert wrong == 0
    assert all(statuses[path, 409] >= TRIALS * CALLS_AFTERWARDS for path in LATE_CALLS)
