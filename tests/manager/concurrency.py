"""Run operations at the same time, each on a thread with its own connection."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from django.db import connections

MAX_THREADS = 8

# A connection takes longer than most operations: a thread keeps its connection until `close_connections`.
threads = ThreadPoolExecutor(MAX_THREADS)


def run_concurrently(runs: Sequence[Callable[[], Any]]) -> list[Any]:
    """Run up to 8 functions, each on a thread with its own connection, all at the same time.

    Raises what any of them raises.
    """
    barrier = threading.Barrier(len(runs))

    def run_one(run: Callable[[], Any]) -> Any:
        barrier.wait(30)
        return run()

    return [future.result(60) for future in [threads.submit(run_one, run) for run in runs]]


def close_connections() -> None:
    """Close the connections of all threads."""
    run_concurrently([connections.close_all] * MAX_THREADS)
