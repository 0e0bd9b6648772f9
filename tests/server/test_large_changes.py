"""A log of large changes: web processes load it and follow it."""

import itertools
import json
from pathlib import Path

from tests.client import token
from tests.server.event_stream import follow_changes
from tests.server.registry import Registry

METADATA = json.dumps({"metadata": {f"m-{number}": "x" * 500 for number in range(120)}})
# In one statement, as an array is appended.
APPEND = f"""
INSERT INTO service_registry_change (mark, at, kind, namespace, service_name, instance_id, instance, changed, actor)
SELECT c.mark, clock_timestamp(), 'updated', c.namespace, c.service_name, c.instance_id,
    c.instance || '{METADATA}'::jsonb, ARRAY['metadata'], c.actor
FROM (SELECT * FROM service_registry_change ORDER BY id DESC LIMIT 1) c, generate_series(1,
"""


def test_process_loads_and_follows_a_log_of_large_changes(tmp_path: Path) -> None:
    """It loads 5,000 changes of 60 kB, and follows 1,500 more.

    The watcher resumes when its stream is disconnected: 40 MB may wait for it, and 90 MB come at once.
    """
    with Registry(tmp_path) as registry:
        team = registry.caller("registry-services", "team")
        team.register("web")
        registry.execute(f"{APPEND}5000)")
        registry.kill_web()
        start = registry.caller("registry-readers").read_newest_index()
        registry.execute(f"{APPEND}1500)")
        changes = follow_changes(registry.ports[0], token("registry-readers"), "service=web", start)
        ids = [int(change["index"].partition("-")[2]) for change in itertools.islice(changes, 1500)]
    assert ids == sorted(set(ids))
