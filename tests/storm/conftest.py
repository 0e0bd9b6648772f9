"""One set of servers for all runs that leave it as it was."""

from collections.abc import Iterator

import pytest

from tests.wire.running import Running


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with Running(tmp_path_factory.mktemp("storm"), web_processes=2) as running:
        yield running
