"""A log of large changes: web processes load it and follow it."""

import itertools
from pathlib import Path

from tests.client import token
from tests.server.change_log import repeat_newest_change
from tests.server.event_stream import follow_changes
from tests.server.registry import Registry

METADATA = {f"m-{number}": "x" * 500 for number in range(120)}


def test_process_loads_and_follows_a_log_of_large_changes(tmp_path: Path) -> None:
    """It loads 5,000 changes of 60 kB, and follows 1,500 more.

    The watcher resumes when its stream is disconnected: 40 MB may wait for it, and 90 MB come at once.
    """
    with Registry(tmp_path) as registry:
        team = registry.caller("registry-services", "team")
        team.register("web")
        repeat_newest_change(registry, 5000, metadata=METADATA)
        registry.kill_web()
        start = registry.caller("registry-readers").read_newest_index()
        repeat_newest_change(registry, 1500, metadata=METADATA)
        changes = follow_changes(registry.ports[0], token("registry-readers"), "service=web", start)
        ids = [int(change["index"].partition("-")[2]) for change in itertools.islice(changes, 1500)]
    assert ids == sorted(set(ids))
