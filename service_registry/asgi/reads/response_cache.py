"""A cache of rendered responses: many readers wait for one change of one service."""

from collections import OrderedDict
from dataclasses import dataclass, field
from sys import getsizeof

# All entries of one process, and what an entry takes beside its body and the texts of its key.
MAX_BYTES = 32 * 1024 * 1024
ENTRY_BYTES = 400

CacheKey = tuple[str, ...]


@dataclass(slots=True)
class ResponseCache:
    """The bodies that were requested last, by namespace, service name, query and, where it is compressed, coding.

    Belongs to the event loop. An entry is valid for one index of its service; the entry that was not requested for
    the longest time goes first. Queries count as bodies do: callers can make many long ones with empty answers.
    """

    max_bytes: int = MAX_BYTES
    held_bytes: int = 0
    entries: OrderedDict[CacheKey, tuple[str, bytes]] = field(default_factory=OrderedDict)

    def get(self, key: CacheKey, index: str) -> bytes | None:
        """Return the body that was rendered at this index, if there is one."""
        found = self.entries.get(key)
        if found is None or found[0] != index:
            return None
        self.entries.move_to_end(key)
        return found[1]

    def put(self, key: CacheKey, index: str, body: bytes) -> None:
        """Keep a body in place of an older one. A body larger than the cache is not kept."""
        self.evict(key)
        if size_of(key, body) > self.max_bytes:
            return
        self.entries[key] = index, body
        self.held_bytes += size_of(key, body)
        while self.held_bytes > self.max_bytes:
            self.evict(next(iter(self.entries)))

    def evict(self, key: CacheKey) -> None:
        entry = self.entries.pop(key, None)
        if entry:
            self.held_bytes -= size_of(key, entry[1])


def size_of(key: CacheKey, body: bytes) -> int:
    """Return the bytes of an entry."""
    return len(body) + sum(map(getsizeof, key)) + ENTRY_BYTES
