"""The sweep stands still, now and then in the middle of a transaction."""

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.scale import trials
from tests.faults.stage import stage
from tests.wire.running import Running

pytestmark = [pytest.mark.faults, pytest.mark.timeout(540)]


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("seconds", [2, 10])
def test_the_sweep_is_frozen(tmp_path: Path, seconds: int) -> None:
    """At random points: now and then in the middle of a transaction, which PostgreSQL ends after three seconds."""
    count = trials(20, 2)
    with stage(tmp_path) as at:
        pid = worker_pid(at.registry)
        for _ in range(count):
            time.sleep(random.uniform(0.2, 1.5))
            with frozen(pid):
                time.sleep(seconds)
        at.assert_none_was_off_the_list(f"worker frozen for {seconds} s", count)


def worker_pid(registry: Running) -> int:
    assert registry.celery is not None
    return registry.celery.pid
