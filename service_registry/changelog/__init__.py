"""The change log: every change in commit order, with author, reason and evidence."""

from service_registry.changelog.append import NewChange, append_changes, commit_listeners, start_log
from service_registry.changelog.latest import read_last_lifecycle_kinds, read_newest_index, read_newest_indexes
from service_registry.changelog.read import CHANGES_PER_PAGE, RecordedChange, parse_index, read_after

__all__ = [
    "CHANGES_PER_PAGE",
    "NewChange",
    "RecordedChange",
    "append_changes",
    "commit_listeners",
    "parse_index",
    "read_after",
    "read_last_lifecycle_kinds",
    "read_newest_index",
    "read_newest_indexes",
    "start_log",
]
