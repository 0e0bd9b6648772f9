"""The newest changes in memory, from which those who come back after a moment go on without the database."""

from bisect import bisect_right
from collections.abc import Sequence

from service_registry.live.replica import Change

CHANGES = 5_000


class Recent:
    """The end of the log without a gap: all changes after `base`, which it may not hold itself.

    Arguments:
        base, base_index: id and index of the change before the first.
        changes: what follows it, oldest first.
        at_most: how many are kept; up to twice as many for a while.
    """

    def __init__(self, base: int, base_index: str, changes: Sequence[Change] = (), at_most: int = CHANGES) -> None:
        self.base = base
        self.base_index = base_index
        self.changes = list(changes)
        self.at_most = at_most

    @classmethod
    def of(cls, newest: Sequence[Change], at_most: int = CHANGES) -> "Recent":
        """What a load found: the first serves only as the base. The log is never empty."""
        return cls(newest[0].pk, newest[0].index, newest[1:], at_most)

    def add(self, change: Change) -> None:
        self.changes.append(change)
        if len(self.changes) > 2 * self.at_most:
            before = self.changes[-self.at_most - 1]
            self.base, self.base_index = before.pk, before.index
            del self.changes[: -self.at_most]

    def after(self, pk: int) -> Sequence[Change] | None:
        """What came after the change `pk`; None where that reaches further back than memory."""
        if pk < self.base:
            return None
        return self.changes[bisect_right(self.changes, pk, key=id_of) :]

    def holds(self, index: str, pk: int) -> bool | None:
        """Whether the change `pk` has this index; None where that reaches further back than memory."""
        if pk <= self.base:
            return index == self.base_index if pk == self.base else None
        place = bisect_right(self.changes, pk, key=id_of) - 1
        return place >= 0 and self.changes[place].index == index


def id_of(change: Change) -> int:
    return change.pk
