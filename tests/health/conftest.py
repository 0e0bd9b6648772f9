"""Settings of checks against this machine."""

import pytest
from django.conf import LazySettings


@pytest.fixture(autouse=True)
def _check_loopback(settings: LazySettings) -> None:
    settings.REGISTRY_HEALTH_NETWORKS = ["127.0.0.0/8"]
