"""A web process with a seeded fault: `python -m tests.watch_consistency.faulty_server FAULT PORT`."""

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

import uvicorn

from registry_project import asgi
from service_registry.asgi.reads.listing import Listing
from service_registry.queries.catalogue import ListPosition
from service_registry.replica.change_buffer import ChangeBuffer
from service_registry.replica.feed import Feed
from service_registry.replica.list_page import PageBuilder
from service_registry.replica.load import read_newest_index
from service_registry.replica.store import Change, Replica
from service_registry.schemas import ListQuery


def index_read_after_the_data() -> None:
    build = Listing.build

    async def build_with_later_index(
        self: Listing, replica: Replica, query: ListQuery, after: ListPosition | None
    ) -> PageBuilder:
        builder = await build(self, replica, query, after)
        await asyncio.sleep(0.02)
        builder.index = replica.index
        return builder

    Listing.build = build_with_later_index  # type: ignore[method-assign]


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

    ChangeBuffer.changes_after = with_the_last  # type: ignore[method-assign]


FAULTS = (index_read_after_the_data, skip_after_reconnecting, duplicates_after_resume)

if __name__ == "__main__":
    next(fault for fault in FAULTS if fault.__name__ == sys.argv[1])()
    uvicorn.run(
        asgi.application,
        port=int(sys.argv[2]),
        http="registry_project.asgi:Connection",
        access_log=False,
        log_level="warning",
    )
