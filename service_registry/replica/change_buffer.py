"""The newest changes in memory, from which those who come back after a moment go on without the database."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence

from service_registry.replica.store import Change

MAX_CHANGES = 5_000
# Of JSON text. An instance may have 25 kB of it, and a change tells it twice.
MAX_BYTES = 16 * 1024 * 1024


class ChangeBuffer:
    """The end of the log without a gap: all changes after `base`, which it may not hold itself.

    Arguments:
        base, base_index: id and index of the change before the first.
        changes: what follows it, oldest first.
        at_most, at_most_bytes: how many are kept, and how much text; up to twice as many, or as much, for a while.
    """

    def __init__(
        self,
        base: int,
        base_index: str,
        changes: Sequence[Change] = (),
        at_most: int = MAX_CHANGES,
        at_most_bytes: int = MAX_BYTES,
    ) -> None:
        self.base = base
        self.base_index = base_index
        self.changes = list(changes)
        self.at_most = at_most
        self.at_most_bytes = at_most_bytes
        self.bytes = sum(map(size_of, self.changes))

    @classmethod
    def from_newest(cls, newest: Sequence[Change]) -> "ChangeBuffer":
        """What a load found: the first serves only as the base. The log is never empty."""
        return cls(newest[0].pk, newest[0].index, newest[1:])

    def add(self, change: Change) -> None:
        self.changes.append(change)
        self.bytes += size_of(change)
        if len(self.changes) > 2 * self.at_most or self.bytes > 2 * self.at_most_bytes:
            self.forget()

    def forget(self) -> None:
        """Keep the newest that are within both bounds, if any."""
        kept = take_fitting(reversed(self.changes), self.at_most, self.at_most_bytes)
        before = self.changes[-len(kept) - 1]
        self.base, self.base_index = before.pk, before.index
        self.changes = kept[::-1]
        self.bytes = sum(map(size_of, kept))

    def changes_after(self, pk: int) -> Sequence[Change] | None:
        """What came after the change `pk`; None where that reaches further back than memory."""
        if pk < self.base:
            return None
        return self.changes[bisect_right(self.changes, pk, key=id_of) :]

    def contains(self, index: str, pk: int) -> bool | None:
        """Whether the change `pk` has this index; None where that reaches further back than memory."""
        if pk <= self.base:
            return index == self.base_index if pk == self.base else None
        place = bisect_right(self.changes, pk, key=id_of) - 1
        return place >= 0 and self.changes[place].index == index


def id_of(change: Change) -> int:
    return change.pk


def size_of(change: Change) -> int:
    """Bytes of text that it holds."""
    return len(change.public) + len(change.private) + (len(change.entry.document) if change.entry else 0)


def take_fitting(changes: Iterable[Change], at_most: int, at_most_bytes: int) -> list[Change]:
    """As many of the first as are within both bounds. No more are asked for than one that is not."""
    fit: list[Change] = []
    left = at_most_bytes
    for change in changes:
        left -= size_of(change)
        if left < 0 or len(fit) == at_most:
            break
        fit.append(change)
    return fit
