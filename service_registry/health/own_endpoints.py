"""The registry's own parts, which no health check may reach: database, broker, web server, development issuer."""

import socket
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings

from service_registry.health.network import Address, NetworkRule, configured_networks, parse_address

DEFAULT_PORTS = {"redis": 6379, "rediss": 6379, "amqp": 5672, "amqps": 5671, "http": 80, "https": 443}
POSTGRESQL_PORT = 5432


def configured_rule() -> NetworkRule:
    """Return the network rule of the settings. Names of the registry's parts are resolved now."""
    endpoints = list(own_endpoints())
    own = {(address, port) for host, port in endpoints for address in addresses_of(host)}
    return NetworkRule(configured_networks(), own, {port for _, port in endpoints})


def own_endpoints() -> Iterator[tuple[str, int]]:
    """Yield host and port of each part that the settings name."""
    yield "localhost", settings.REGISTRY_PORT
    database = settings.DATABASES["default"]
    yield from database_endpoints({**database["OPTIONS"], "host": database["HOST"], "port": database["PORT"]})
    yield from database_endpoints(settings.DATABASE_DIRECT_URL)
    yield from url_endpoints(settings.CELERY_BROKER_URL)
    yield from url_endpoints(settings.OIDC_ISSUER)


def database_endpoints(parameters: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Yield the endpoints of libpq's parameters, which may name several hosts and ports (one for each, or for all).

    `hostaddr` has the addresses of the hosts, in place of a resolver.
    """
    ports = str(parameters.get("port") or "").split(",")
    for name in ("host", "hostaddr"):
        hosts = str(parameters.get(name) or "").split(",")
        for number, host in enumerate(hosts):
            port = ports[number] if len(ports) == len(hosts) else ports[0]
            yield host if host and not host.startswith("/") else "localhost", int(port or POSTGRESQL_PORT)


def url_endpoints(url: str) -> Iterator[tuple[str, int]]:
    parts = urlsplit(url)
    if parts.hostname:
        port = parts.port or DEFAULT_PORTS.get(parts.scheme)
        if port:
            yield parts.hostname, port


def addresses_of(host: str) -> set[Address]:
    """Return the addresses of a host; none where it has no address now."""
    try:
        return {parse_address(str(entry[4][0])) for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):
        return set()
