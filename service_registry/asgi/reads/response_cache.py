"""A cache of rendered responses: many readers wait for one change of one service."""

from collections import OrderedDict
from dataclasses import dataclass, field

# All entries of one process.
MAX_BYTES = 32 * 1024 * 1024

CacheKey = tuple[str, str, str]


@dataclass(slots=True)
class ResponseCache:
    """The bodies that were requested last, by namespace, service name and query.

    Belongs to the event loop. An entry is valid for one index of its service; the entry that was not requested for
    the longest time goes first.
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
        if len(body) > self.max_bytes:
            return
        self.entries[key] = index, body
        self.held_bytes += len(body)
        while self.held_bytes > self.max_bytes:
            self.evict(next(iter(self.entries)))

    def evict(self, key: CacheKey) -> None:
        _index, body = self.entries.pop(key, ("", b""))
        self.held_bytes -= len(body)
