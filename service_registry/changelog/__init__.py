"""The change log: what happened, in commit order, with its author, reason and evidence."""

from service_registry.changelog.append import Event, append_changes, commit_listeners, start_log
from service_registry.changelog.latest import end, ends, last_arrivals
from service_registry.changelog.read import CHANGES_AT_ONCE, Recorded, parse, read_after

__all__ = [
    "CHANGES_AT_ONCE",
    "Event",
    "Recorded",
    "append_changes",
    "commit_listeners",
    "end",
    "ends",
    "last_arrivals",
    "parse",
    "read_after",
    "start_log",
]
