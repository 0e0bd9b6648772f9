"""What the suite runs in: settings for a test, and a PostgreSQL of its own in memory.

Loaded by `-p tests.environment` before Django's settings are. Workers of xdist inherit the address.
"""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from registry_project.embedded.postgres import Server

MEMORY = Path("/dev/shm")

os.environ.setdefault("DEBUG", "true")
os.environ.setdefault("OIDC_ISSUER", "http://127.0.0.1:9/development-issuer")
os.environ.setdefault("SECRET_KEY", "a-key-for-tests-alone-which-signs-nothing-of-any-value")


class PrivatePostgres:
    def __init__(self) -> None:
        place = MEMORY if os.access(MEMORY, os.W_OK) else None
        self.directory = Path(tempfile.mkdtemp(prefix="registry-tests-", dir=place))
        self.directory.chmod(0o755)
        self.server = Server(self.directory / "postgres", durable=False, settings={"max_connections": "200"})
        self.server.start()
        os.environ["DATABASE_URL"] = self.server.url
        os.environ["REGISTRY_DATA_DIR"] = str(self.directory / "data")

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self) -> None:
        self.server.stop()
        shutil.rmtree(self.directory, ignore_errors=True)


def pytest_configure(config: pytest.Config) -> None:
    if private:
        config.pluginmanager.register(private, "private-postgres")


private = None if "DATABASE_URL" in os.environ else PrivatePostgres()
