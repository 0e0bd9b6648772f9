"""Callers of a module's `registry`."""

import pytest

from tests.server.registry import Caller, Registry


@pytest.fixture
def team(registry: Registry) -> Caller:
    return registry.caller("registry-services", "team")


@pytest.fixture
def reader(registry: Registry) -> Caller:
    return registry.caller("registry-readers", subject="reader")
