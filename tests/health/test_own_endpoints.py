"""The registry's own parts, as the settings name them."""

from ipaddress import ip_address, ip_network

import pytest
from pytest_django import Settings

from service_registry.health.network import ForbiddenAddress, NetworkRule
from service_registry.health.own_endpoints import configured_rule, database_endpoints, url_endpoints


@pytest.mark.parametrize(
    ("parameters", "endpoints"),
    [
        ({"host": "db1", "port": 5433}, {("db1", 5433)}),
        ({"host": "db1"}, {("db1", 5432)}),
        ({"host": "db1,db2", "port": "5433"}, {("db1", 5433), ("db2", 5433)}),
        ({"host": "db1,db2", "port": "5433,5434"}, {("db1", 5433), ("db2", 5434)}),
        ({"host": "/run/postgresql", "port": ""}, {("localhost", 5432)}),
        ({"host": "db1", "hostaddr": "10.0.0.9", "port": "5433"}, {("db1", 5433), ("10.0.0.9", 5433)}),
    ],
)
def test_endpoints_of_a_database(parameters: dict[str, object], endpoints: set[tuple[str, int]]) -> None:
    assert endpoints <= set(database_endpoints(parameters))


@pytest.mark.parametrize(
    ("url", "endpoints"),
    [
        ("redis://:secret@broker/0", [("broker", 6379)]),
        ("amqps://broker:5700//", [("broker", 5700)]),
        ("https://sso.example.test/realms/main", [("sso.example.test", 443)]),
        ("http://[2001:db8::1]:8081/", [("2001:db8::1", 8081)]),
        ("memory://", []),
    ],
)
def test_endpoints_of_a_url(url: str, endpoints: list[tuple[str, int]]) -> None:
    assert list(url_endpoints(url)) == endpoints


@pytest.mark.parametrize("port", ["database", "web", "broker", "issuer"])
def test_own_ports_are_refused_on_every_address_of_this_machine(settings: Settings, port: str) -> None:
    settings.REGISTRY_HEALTH_NETWORKS = ["127.0.0.0/8"]
    settings.REGISTRY_PORT = 8000
    settings.CELERY_BROKER_URL = "redis://127.0.0.1:6380/0"
    settings.OIDC_ISSUER = "http://127.0.0.1:8001/"
    ports = {"database": int(settings.DATABASES["default"]["PORT"]), "web": 8000, "broker": 6380, "issuer": 8001}
    rule = configured_rule()
    rule.require(ip_address("127.0.0.1"), 9)
    for address in ("127.0.0.1", "127.9.9.9"):
        with pytest.raises(ForbiddenAddress, match="belongs to the registry"):
            rule.require(ip_address(address), ports[port])


def test_own_address_elsewhere_is_refused_at_its_port_alone() -> None:
    database = ip_address("10.0.0.9")
    rule = NetworkRule([ip_network("10.0.0.0/8")], {(database, 5432)}, {5432})
    rule.require(database, 80)
    rule.require(ip_address("10.0.0.10"), 5432)
    with pytest.raises(ForbiddenAddress):
        rule.require(database, 5432)
