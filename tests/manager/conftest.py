"""Connections of threads end with the test that used them."""

from collections.abc import Iterator

import pytest

from tests.manager.concurrency import close_connections


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    yield
    close_connections()
