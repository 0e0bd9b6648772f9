"""Start the front ends once for each test process."""

from collections.abc import Iterator

import pytest

from tests.front_ends.calls import groups
from tests.front_ends.client import FrontEnd
from tests.front_ends.running import Run
from tests.front_ends.servers import migrated_database, serving


@pytest.fixture(scope="session")
def database_url() -> Iterator[str]:
    with migrated_database(groups()) as url:
        yield url


@pytest.fixture(scope="session")
def fronts(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FrontEnd, FrontEnd]]:
    with serving(database_url, tmp_path_factory.mktemp("front-ends")) as started:
        yield started


@pytest.fixture
def run(fronts: tuple[FrontEnd, FrontEnd]) -> Run:
    return Run(fronts)
