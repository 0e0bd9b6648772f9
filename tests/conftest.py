"""Fixtures for all tests."""

import pytest

from service_registry.access_rules import access_rules
from service_registry.http.authentication import callers
from tests.client import Api


@pytest.fixture(autouse=True)
def _forget_callers() -> None:
    access_rules.latest = callers.generation = None


@pytest.fixture
def payments(db: None) -> Api:
    """A client of team-payments, with the role of services."""
    return Api("registry-services", "team-payments", subject="payments")


@pytest.fixture
def other_team(db: None) -> Api:
    """A client of another team, with the role of services."""
    return Api("registry-services", "team-other", subject="other_team")


@pytest.fixture
def reader(db: None) -> Api:
    return Api("registry-readers", subject="reader")


@pytest.fixture
def operator(db: None) -> Api:
    return Api("registry-operators", subject="operator")
