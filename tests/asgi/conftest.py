"""The ASGI application for tests in this process."""

from collections.abc import Iterator

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
    for threads in (process.write_threads, process.django_threads, process.probe.thread):
        threads.submit(connections.close_all)
        threads.shutdown()
    readiness.process_checks.clear()
    readiness.process_checks.update(process_checks)
    memory_budget.capacity_checks[:] = capacity_checks
