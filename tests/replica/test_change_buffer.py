"""The change buffer stays within its bounds and has no gap."""

import pytest

from service_registry.replica.change_buffer import ChangeBuffer
from tests.replica.hubs import change, index


@pytest.mark.parametrize(("max_changes", "max_bytes"), [(10, 10**9), (10**9, 10_000)])
def test_buffer_is_bounded_by_count_and_bytes_and_has_no_gap(max_changes: int, max_bytes: int) -> None:
    buffer = ChangeBuffer(0, index(0), max_changes=max_changes, max_bytes=max_bytes)
    for pk in range(1, 1001):
        buffer.add(change(pk, size=1000))
        assert [kept.pk for kept in buffer.changes] == list(range(buffer.base + 1, pk + 1))
        assert len(buffer.changes) >= min(pk, 10)
        assert len(buffer.changes) <= 20
        assert buffer.contains(index(buffer.base), buffer.base)
        assert buffer.changes_after(buffer.base - 1) is None


def test_change_larger_than_the_buffer_becomes_its_base() -> None:
    buffer = ChangeBuffer(0, index(0), max_bytes=100)
    buffer.add(change(1, size=1000))
    assert (buffer.base, buffer.changes, buffer.contains(index(1), 1)) == (1, [], True)
    buffer.add(change(2, size=10))
    assert [kept.pk for kept in buffer.changes_after(1) or ()] == [2]
