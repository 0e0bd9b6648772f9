"""Give the pages of the list from memory while the database is away, byte for byte as PostgreSQL renders them."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from service_registry.api.renderer import INDEX_HEADER
from service_registry.asgi.flow_control import UNKNOWN_BYTES, Answers
from service_registry.asgi.reads.response_cache import Texts
from service_registry.asgi.transport import stale_header
from service_registry.exceptions import TooBusy
from service_registry.http import cursors
from service_registry.http.etag import question_of
from service_registry.queries.catalogue import ListPosition
from service_registry.replica.hub import Hub
from service_registry.replica.list_page import PageBuilder, copy_in_parts, select_keys
from service_registry.replica.store import Replica
from service_registry.schemas import ListQuery

# How many may wait for their page, and how long: who has waited longer is likely to have gone.
QUEUE_AT_MOST = 200
PATIENCE_SECONDS = 10

Result = TypeVar("Result")


class Listing:
    """Puts pages together on a thread of its own, one after the other: many who ask the same have it made once. Each
    only when there is room for it among the `answers`, which count it as soon as it is sent."""

    def __init__(self, hub: Hub, texts: Texts, answers: Answers) -> None:
        self.hub = hub
        self.texts = texts
        self.answers = answers
        self.turn = asyncio.Lock()
        self.queueing = 0
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="list")

    @property
    def is_needed(self) -> bool:
        """Whether the log has not been read for a while, and there is something to answer from."""
        return self.hub.replica is not None and self.hub.stale_seconds is not None

    async def page(self, query: ListQuery) -> tuple[bytes, dict[str, str]] | None:
        """A page's text, and the headers that say how old it is; None when the database is there again.

        Raises InvalidInput for a cursor that is none, and TooBusy when too many wait for their page, or too long.
        """
        after = cursors.place_of(query.after)
        if self.queueing >= QUEUE_AT_MOST:
            raise TooBusy
        self.queueing += 1
        try:
            async with asyncio.timeout(PATIENCE_SECONDS), self.turn:
                replica = self.hub.replica
                if replica is None or not self.is_needed:
                    return None
                headers = {INDEX_HEADER: replica.index} | stale_header(self.hub)
                return await self.text(replica, query, after), headers
        except TimeoutError:
            raise TooBusy from None
        finally:
            self.queueing -= 1

    async def text(self, replica: Replica, query: ListQuery, after: ListPosition | None) -> bytes:
        question, index = ("", "", question_of(query)), replica.index
        kept = self.texts.get(question, index)
        if kept is None or not self.answers.has_room_for(kept):
            del kept
            await self.answers.wait_for_room(UNKNOWN_BYTES)
            kept = self.texts.get(question, index)
        if kept is not None:
            return kept
        draft = await self.drafted(replica, query, after)
        text = await self.on_thread(lambda: cursors.written(draft.build_page(after)).encode())
        self.texts.keep(question, index, text)
        return text

    async def drafted(self, replica: Replica, query: ListQuery, after: ListPosition | None) -> PageBuilder:
        """The replica is read on the event loop, part by part, and each part is looked at on the thread. What comes
        between two parts is newer than the page's index, as it may be where the database is asked."""
        draft = PageBuilder(query, replica.index)
        keys = await self.on_thread(partial(select_keys, list(replica.services), query, after))
        for part in copy_in_parts(replica, keys, query.owner):
            await self.on_thread(partial(draft.add, part))
            if draft.has_more:
                break
        return draft

    async def on_thread(self, do: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self.thread, do)
