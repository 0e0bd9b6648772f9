"""A web process with a fault in it: `python -m tests.watch_consistency.faulty_server FAULT PORT`."""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import uvicorn

from registry_project import asgi
from service_registry import changelog
from service_registry.queries import catalogue
from service_registry.replica import change_buffer
from service_registry.replica.change_buffer import ChangeBuffer
from service_registry.replica.feed import Feed
from service_registry.replica.load import read_newest_index
from service_registry.replica.store import Change


def index_read_after_the_data() -> None:
    read: Callable[..., catalogue.ServicePage] = catalogue.list_services

    def page(*arguments: Any) -> catalogue.ServicePage:
        found = read(*arguments)
        time.sleep(0.02)
        return replace(found, index=changelog.read_newest_index()) if arguments[1] is None else found

    catalogue.list_services = page  # type: ignore[assignment]


def skip_after_reconnecting() -> None:
    follow = Feed.follow

    def follow_from_the_end(self: Feed, connection: Any) -> None:
        if self.at is not None:
            self.at = read_newest_index(connection)
        follow(self, connection)

    Feed.follow = follow_from_the_end  # type: ignore[method-assign]


def duplicates_after_resume() -> None:
    changes_after = ChangeBuffer.changes_after

    def with_the_last(self: ChangeBuffer, pk: int) -> Sequence[Change] | None:
        return changes_after(self, pk - 1)

    change_buffer.ChangeBuffer.changes_after = with_the_last  # type: ignore[method-assign]


FAULTS = (index_read_after_the_data, skip_after_reconnecting, duplicates_after_resume)

if __name__ == "__main__":
    next(fault for fault in FAULTS if fault.__name__ == sys.argv[1])()
    uvicorn.run(asgi.application, port=int(sys.argv[2]), access_log=False, log_level="warning", timeout_keep_alive=5)
