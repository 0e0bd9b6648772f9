"""Garbage collection after the heap is frozen."""

import gc
from collections import deque
from collections.abc import Iterator

import pytest

from service_registry import gc_tuning


class Cycle:
    """A reference cycle, which only the garbage collector can free."""

    alive = 0

    def __init__(self) -> None:
        Cycle.alive += 1
        self.itself = self

    def __del__(self) -> None:
        Cycle.alive -= 1


@pytest.fixture
def frozen_heap() -> Iterator[None]:
    before = gc.get_threshold()
    gc_tuning.freeze_heap()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


def test_objects_present_at_the_freeze_are_excluded_from_collection(frozen_heap: None) -> None:
    assert gc.get_freeze_count() > 10_000
    assert len(gc.get_objects()) < 10_000


def test_cycles_created_after_the_freeze_are_collected_in_time(frozen_heap: None) -> None:
    """Each cycle survives several young collections before it becomes garbage, like the objects of a connection."""
    present: deque[Cycle] = deque(maxlen=150_000)
    most = 0
    for _ in range(1_200_000):
        present.append(Cycle())
        most = max(most, Cycle.alive)
    assert most < 800_000
