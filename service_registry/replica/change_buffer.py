"""Keep the newest changes in memory for clients that reconnect shortly after."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence

from service_registry.replica.store import Change

MAX_CHANGES = 5_000
# Bytes of JSON text. An instance may have 34 kB of it, 68 kB if all is quotes; a change contains its instance twice.
MAX_BYTES = 16 * 1024 * 1024


class ChangeBuffer:
    """The newest part of the log without a gap: all changes after `base`.

    `base` itself need not be in the buffer.

    Arguments:
        base, base_index: id and index of the change before the first one in the buffer.
        changes: the changes after `base`, oldest first.
        max_changes, max_bytes: how much the buffer keeps when it is trimmed, which happens at twice as much.
    """

    def __init__(
        self,
        base: int,
        base_index: str,
        changes: Sequence[Change] = (),
        max_changes: int = MAX_CHANGES,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self.base = base
        self.base_index = base_index
        self.changes = list(changes)
        self.max_changes = max_changes
        self.max_bytes = max_bytes
        self.bytes = sum(change.size_bytes for change in self.changes)

    @classmethod
    def from_newest(cls, newest: Sequence[Change]) -> "ChangeBuffer":
        """Create a buffer from at least one change; the first one becomes the base.

        The log is never empty.
        """
        return cls(newest[0].pk, newest[0].index, newest[1:])

    def add(self, change: Change) -> None:
        self.changes.append(change)
        self.bytes += change.size_bytes
        if len(self.changes) > 2 * self.max_changes or self.bytes > 2 * self.max_bytes:
            self.trim()

    def trim(self) -> None:
        """Keep the newest changes that fit both bounds, possibly none."""
        kept = take_fitting(reversed(self.changes), self.max_changes, self.max_bytes)
        new_base = self.changes[-len(kept) - 1]
        self.base, self.base_index = new_base.pk, new_base.index
        self.changes = kept[::-1]
        self.bytes = sum(change.size_bytes for change in kept)

    def changes_after(self, pk: int) -> Sequence[Change] | None:
        """Return the changes after the change `pk`.

        Returns None when the buffer does not reach back that far.
        """
        if pk < self.base:
            return None
        return self.changes[bisect_right(self.changes, pk, key=get_pk) :]

    def contains(self, index: str, pk: int) -> bool | None:
        """Return whether the change `pk` has this index.

        Returns None when the buffer does not reach back that far.
        """
        if pk <= self.base:
            return index == self.base_index if pk == self.base else None
        place = bisect_right(self.changes, pk, key=get_pk) - 1
        return place >= 0 and self.changes[place].index == index


def get_pk(change: Change) -> int:
    return change.pk


def take_fitting(changes: Iterable[Change], max_changes: int, max_bytes: int) -> list[Change]:
    """Return the first changes that fit both bounds.

    At most one change that does not fit is consumed.
    """
    fitting: list[Change] = []
    bytes_left = max_bytes
    for change in changes:
        bytes_left -= change.size_bytes
        if bytes_left < 0 or len(fitting) == max_changes:
            break
        fitting.append(change)
    return fitting
