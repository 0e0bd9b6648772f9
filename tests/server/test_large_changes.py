"""Processes that load, and follow, a log whose changes are large."""

import json
from pathlib import Path

from tests.client import registration, token
from tests.server.event_stream import BackgroundStream
from tests.server.registry import Registry
from tests.waiting import wait_for

METADATA = json.dumps({"metadata": {f"m-{number}": "x" * 500 for number in range(120)}})
# Written at once, as an array is.
APPEND = f"""
INSERT INTO service_registry_change (mark, at, kind, namespace, service_name, instance_id, instance, changed, actor)
SELECT c.mark, clock_timestamp(), 'updated', c.namespace, c.service_name, c.instance_id,
    c.instance || '{METADATA}'::jsonb, ARRAY['metadata'], c.actor
FROM (SELECT * FROM service_registry_change ORDER BY id DESC LIMIT 1) c, generate_series(1,
"""


def test_it_gets_ready_and_follows(tmp_path: Path) -> None:
    """5,000 changes of 60 kB, and then 1,500 more."""
    with Registry(tmp_path) as registry:
        team = registry.caller("registry-services", "team")
        assert team.call("POST", "/registry/register", registration(ttl_seconds=3600)).status == 201
        registry.execute(f"{APPEND}5000)")
        registry.kill_web()
        listening = BackgroundStream(registry.ports[0], token("registry-readers"), "service=web")
        wait_for(lambda: "sync" in listening.kinds)
        registry.execute(f"{APPEND}1500)")
        wait_for(lambda: len(listening.changes) == 1500)
        listening.close()
