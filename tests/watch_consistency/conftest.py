"""One set of servers for all runs that leave it as it was."""

from collections.abc import Iterator

import pytest

from tests.server.registry import Registry


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("storm"), web_processes=2) as running:
        yield running
