"""A fleet of 50,000 instances in 500 services, registered over HTTP in arrays."""

from collections.abc import Iterator

import pytest

from tests.client import registration
from tests.server.registry import Registry

SERVICES = 500
INSTANCES_PER_SERVICE = 100
OLD = 80  # of a service's instances, by zone
ARRAY = 1000


def name_of(service: int) -> str:
    return f"service-{service:03}"


@pytest.fixture
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    variables = {"REGISTRY_MAX_INSTANCES_PER_OWNER": "1000000", "REGISTRY_MAX_SERVICES_PER_OWNER": "1000000"}
    with Registry(tmp_path_factory.mktemp("scale"), variables=variables) as registry:
        team = registry.caller("registry-services", "team-fleet")
        items = [
            registration(name_of(service), f"i-{number:03}", ttl_seconds=3600, zone="old" if number < OLD else "new")
            for service in range(SERVICES)
            for number in range(INSTANCES_PER_SERVICE)
        ]
        for start in range(0, len(items), ARRAY):
            reply = team.call("POST", "/registry/register", items[start : start + ARRAY])
            assert {result["status"] for result in reply.json["results"]} == {201}
        registry.execute("ANALYZE")
        yield registry
