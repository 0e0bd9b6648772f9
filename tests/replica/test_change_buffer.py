"""The end of the log in memory, within its bounds."""

import pytest

from service_registry.replica.change_buffer import ChangeBuffer
from tests.replica.hubs import change, index


@pytest.mark.parametrize(("max_changes", "max_bytes"), [(10, 10**9), (10**9, 10_000)])
def test_it_is_bounded_by_number_and_by_text_and_has_no_gap(max_changes: int, max_bytes: int) -> None:
    recent = ChangeBuffer(0, index(0), max_changes=max_changes, max_bytes=max_bytes)
    for pk in range(1, 1001):
        recent.add(change(pk, size=1000))
        assert [one.pk for one in recent.changes] == list(range(recent.base + 1, pk + 1))
        assert len(recent.changes) >= min(pk, 10)
        assert len(recent.changes) <= 20
        assert recent.contains(index(recent.base), recent.base)
        assert recent.changes_after(recent.base - 1) is None


def test_a_change_past_all_bounds_is_the_base_of_those_to_come() -> None:
    recent = ChangeBuffer(0, index(0), max_bytes=100)
    recent.add(change(1, size=1000))
    assert (recent.base, recent.changes, recent.contains(index(1), 1)) == (1, [], True)
    recent.add(change(2, size=10))
    assert [one.pk for one in recent.changes_after(1) or ()] == [2]
