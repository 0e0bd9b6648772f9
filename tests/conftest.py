"""Fixtures that every test may use."""

import pytest

from service_registry.permissions import permission_cache
from tests.client import Api


@pytest.fixture(autouse=True)
def _invalidate_permission_cache() -> None:
    permission_cache.invalidate()


@pytest.fixture
def payments(db: None) -> Api:
    """A service of the team that owns what it registers."""
    return Api("registry-services", "team-payments", subject="payments")


@pytest.fixture
def stranger(db: None) -> Api:
    """A service of another team."""
    return Api("registry-services", "team-other", subject="stranger")


@pytest.fixture
def reader(db: None) -> Api:
    return Api("registry-readers", subject="reader")


@pytest.fixture
def operator(db: None) -> Api:
    return Api("registry-operators", subject="operator")
