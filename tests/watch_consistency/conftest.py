"""The registry of all runs whose faults leave it usable."""

from collections.abc import Iterator

import pytest

from tests.server.registry import Registry


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("watch-consistency"), web_processes=2) as running:
        yield running
