"""Start the PostgreSQL and the issuer of the test run, set its environment, and distribute its tests.

Loaded by `-p tests.environment` before Django's settings are. Workers of xdist inherit the addresses.
"""

import os
import shutil
import signal
import tempfile
import threading
from pathlib import Path

import pytest

from registry_project.devstack.issuer.server import Server as Issuer
from registry_project.devstack.postgres import Server as Postgres

MEMORY = Path("/dev/shm")
# Tests that check query plans run ANALYZE themselves; an autovacuum would change the counts of others.
SETTINGS = {"max_connections": "200", "autovacuum": "off"}
AUDIENCE = "service-registry"
# Most tests wait for a server more than they compute. Each worker needs up to 25 of the connections.
WORKERS_PER_CORE, MAX_WORKERS = 2, 8
# These start servers, or wait, and take the longest. One that begins last would run alone.
FIRST = (
    "tests/server/",
    "tests/devstack/",
    "tests/front_ends/",
    "tests/manager/test_races",
    "tests/asgi/test_flow_control",
)

# A test run in the background of a shell ignores SIGINT, and so would every process that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ.setdefault("DEBUG", "true")
os.environ.setdefault("SECRET_KEY", "a-key-for-tests-only-which-signs-nothing-of-any-value")


class Environment:
    def __init__(self) -> None:
        place = MEMORY if os.access(MEMORY, os.W_OK) else None
        self.directory = Path(tempfile.mkdtemp(prefix="registry-tests-", dir=place))
        self.directory.chmod(0o755)
        os.environ["REGISTRY_TESTS_DIRECTORY"] = str(self.directory)
        self.postgres = Postgres(self.directory / "postgres", durable=False, settings=SETTINGS)
        self.postgres.start()
        self.issuer = Issuer(0, self.directory / "data", AUDIENCE)
        threading.Thread(target=self.issuer.serve_forever, daemon=True).start()
        os.environ["DATABASE_URL"] = self.postgres.url
        os.environ["REGISTRY_DATA_DIR"] = str(self.directory / "data")
        os.environ["OIDC_ISSUER"] = self.issuer.issuer.url

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self) -> None:
        self.issuer.shutdown()
        self.issuer.server_close()
        self.postgres.stop()
        shutil.rmtree(self.directory, ignore_errors=True)


def pytest_configure(config: pytest.Config) -> None:
    if environment:
        config.pluginmanager.register(environment, "registry-environment")


@pytest.hookimpl(tryfirst=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return the number of workers for `-n auto`."""
    return min(WORKERS_PER_CORE * len(os.sched_getaffinity(0)), MAX_WORKERS)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take the longest, in random order, as are the others."""
    items.sort(key=lambda item: not item.nodeid.startswith(FIRST))


environment = None if "DATABASE_URL" in os.environ else Environment()
