"""Callers of a module's `registry`."""

import pytest

from tests.wire.running import Caller, Running


@pytest.fixture
def team(registry: Running) -> Caller:
    return registry.caller("registry-services", "team")


@pytest.fixture
def reader(registry: Running) -> Caller:
    return registry.caller("registry-readers", subject="reader")
