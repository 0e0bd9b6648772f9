"""The ASGI application for tests in this process."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connections

from service_registry.asgi.app import Application
from service_registry.http import memory_budget, readiness


@pytest.fixture
def application() -> Iterator[Application]:
    """An application as after its start, but without a replica, a feed and a pulse."""
    process_checks, capacity_checks = dict(readiness.process_checks), list(memory_budget.capacity_checks)
    application = Application()
    yield application
    process = application.process
    reads = process.read_threads
    for threads in (
        process.write_threads,
        process.django_threads,
        process.probe.thread,
        reads._reads,
        reads.pages.threads,
    ):
        close_connections(threads)
    readiness.process_checks.clear()
    readiness.process_checks.update(process_checks)
    memory_budget.capacity_checks[:] = capacity_checks


def close_connections(threads: ThreadPoolExecutor) -> None:
    """Close the database connection of each thread, and end the threads."""
    all_threads = threading.Barrier(threads._max_workers)

    def close() -> None:
        all_threads.wait(60)
        connections.close_all()

    for _ in range(all_threads.parties):
        threads.submit(close)
    threads.shutdown()
