"""Run operations at the same time, each on a thread with its own connection."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from django.db import connections


def run_concurrently(runs: Sequence[Callable[[], Any]]) -> list[Any]:
    """Run each function on a thread with its own connection, all at the same time. Raises what any of them raises."""
    barrier = threading.Barrier(len(runs))

    def run_one(run: Callable[[], Any]) -> Any:
        try:
            barrier.wait(30)
            return run()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(runs)) as threads:
        return [future.result(60) for future in [threads.submit(run_one, run) for run in runs]]
