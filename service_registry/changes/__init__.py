"""The change log: what happened, in commit order, with its author, reason and evidence."""

from service_registry.changes.appending import Event, append, start_log
from service_registry.changes.ends import end, ends, last_arrivals

__all__ = ["Event", "append", "end", "ends", "last_arrivals", "start_log"]
