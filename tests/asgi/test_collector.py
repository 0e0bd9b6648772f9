"""What is left to Python's collector of cycles, and what is not."""

import gc
from collections import deque
from collections.abc import Iterator

import pytest

from service_registry import gc_tuning


class Cycle:
    """Garbage that only the collector finds."""

    alive = 0

    def __init__(self) -> None:
        Cycle.alive += 1
        self.itself = self

    def __del__(self) -> None:
        Cycle.alive -= 1


@pytest.fixture
def spared() -> Iterator[None]:
    before = gc.get_threshold()
    gc_tuning.freeze_heap()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


def test_what_is_there_at_the_start_is_left_out(spared: None) -> None:
    assert gc.get_freeze_count() > 10_000
    assert len(gc.get_objects()) < 10_000


def test_cycles_that_come_and_go_are_found_in_time(spared: None) -> None:
    """Each lives through some looks at the young before it goes, as what a connection leaves does."""
    present: deque[Cycle] = deque(maxlen=150_000)
    most = 0
    for _ in range(2_000_000):
        present.append(Cycle())
        most = max(most, Cycle.alive)
    assert most < 800_000
