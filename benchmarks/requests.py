"""The kinds of requests, as whole HTTP/1.1 messages, and the fleet that they are about.

The fleet's instances are `i-N`, ten in each service. They are registered before anything is measured.
"""

import functools
import http.client
import itertools
import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

INSTANCES_PER_SERVICE = 10
ARRAY_ITEMS = 500
LISTED_SERVICES = 20
# Long enough that nothing expires while other kinds are measured.
TTL_SECONDS = 3600


@dataclass(frozen=True)
class Fleet:
    """The instances that requests are about. Each team owns those of one array.

    Arguments:
        instances: how many, a multiple of ARRAY_ITEMS.
    """

    instances: int = 50_000

    @property
    def teams(self) -> int:
        return self.instances // ARRAY_ITEMS

    @property
    def services(self) -> int:
        return self.instances // INSTANCES_PER_SERVICE

    def team_of(self, number: int) -> int:
        return number // INSTANCES_PER_SERVICE % self.teams

    def instances_of(self, team: int) -> list[int]:
        """Return the numbers of a team's ARRAY_ITEMS instances."""
        return [number for number in range(self.instances) if self.team_of(number) == team]


@dataclass(frozen=True)
class RequestKind:
    """A kind of request.

    Attributes:
        status: of its responses.
        baseline: the script of pgbench that does the same to PostgreSQL.
        items: in each request.
    """

    name: str
    status: int
    make_requests: Callable[[], Iterator[bytes]]
    baseline: str | None = None
    items: int = 1


def make_registration(number: int) -> dict[str, Any]:
    return {
        "service_name": f"service-{number // INSTANCES_PER_SERVICE}",
        "instance_id": f"i-{number}",
        "host": f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}",
        "port": 8080,
        "zone": "eu-1a",
        "tags": ["blue", "http2"],
        "metadata": {"version": "1.4.2", "commit": "a8a1c6d2", "team": "payments"},
        "ttl_seconds": TTL_SECONDS,
    }


def make_heartbeat(number: int) -> dict[str, str]:
    return {"service_name": f"service-{number // INSTANCES_PER_SERVICE}", "instance_id": f"i-{number}"}


class RequestFactory:
    """Makes requests about a fleet, with the tokens of its teams, in their order."""

    def __init__(self, fleet: Fleet, tokens: Sequence[str]) -> None:
        self.fleet = fleet
        self.common = [f"Host: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n" for token in tokens]
        self.unused = itertools.count(fleet.instances)

    def kinds(self, ports: Sequence[int]) -> list[RequestKind]:
        return [
            RequestKind("register (new)", 201, self.registrations, "insert an instance"),
            RequestKind("register (again)", 200, self.repeated_registrations, "upsert an instance"),
            RequestKind("heartbeat", 200, self.heartbeats, "upsert a lease"),
            RequestKind(
                f"heartbeats, {ARRAY_ITEMS} per array", 200, self.heartbeat_arrays, "upsert a lease", ARRAY_ITEMS
            ),
            RequestKind(f"discovery ({INSTANCES_PER_SERVICE} instances)", 200, self.discoveries),
            RequestKind("discovery, unchanged (304)", 304, lambda: self.conditional_discoveries(ports[0])),
            RequestKind(f"list ({LISTED_SERVICES} services)", 200, self.lists),
        ]

    def post(self, path: str, body: Any, team: int) -> bytes:
        content = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\n{self.common[team]}Content-Type: application/json\r\n"
        return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content

    def get(self, path: str, more: str = "") -> bytes:
        return f"GET {path} HTTP/1.1\r\n{self.common[0]}{more}\r\n".encode()

    def registrations(self) -> Iterator[bytes]:
        """New instances of existing services: a fleet that grows."""
        for number in self.unused:
            of = random.randrange(self.fleet.instances)
            body = make_registration(of) | {"instance_id": f"new-{number}"}
            yield self.post("/registry/register", body, self.fleet.team_of(of))

    def repeated_registrations(self) -> Iterator[bytes]:
        while True:
            number = random.randrange(self.fleet.instances)
            yield self.post("/registry/register", make_registration(number), self.fleet.team_of(number))

    def heartbeats(self) -> Iterator[bytes]:
        while True:
            number = random.randrange(self.fleet.instances)
            yield self.post("/registry/heartbeat", make_heartbeat(number), self.fleet.team_of(number))

    @functools.cached_property
    def arrays(self) -> list[bytes]:
        """One for each team, as a sidecar sends it. Made once, so that the client's own work is not measured."""
        return [
            self.post("/registry/heartbeat", [make_heartbeat(each) for each in self.fleet.instances_of(team)], team)
            for team in range(self.fleet.teams)
        ]

    def heartbeat_arrays(self) -> Iterator[bytes]:
        return itertools.cycle(random.sample(self.arrays, self.fleet.teams))

    def discoveries(self) -> Iterator[bytes]:
        while True:
            yield self.get(f"/registry/services/service-{random.randrange(self.fleet.services)}")

    def conditional_discoveries(self, port: int) -> Iterator[bytes]:
        """Discovery by callers that have the response already."""
        made: list[bytes] = []
        for number in range(20):
            path = f"/registry/services/service-{number}"
            _, headers, _ = exchange(port, self.get(path))
            made.append(self.get(path, f"If-None-Match: {headers['etag']}\r\n"))
        yield from itertools.cycle(made)

    def lists(self) -> Iterator[bytes]:
        """First pages of the list."""
        return itertools.repeat(self.get(f"/registry/services?limit={LISTED_SERVICES}"))


def exchange(port: int, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send one request; return the status, the headers in lower case, and the body of the response."""
    head, _, body = request.partition(b"\r\n\r\n")
    request_line, *lines = head.decode().split("\r\n")
    method, path, _version = request_line.split(" ")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body or None, dict(line.split(": ", 1) for line in lines))
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    finally:
        connection.close()


def register_fleet(port: int, factory: RequestFactory) -> None:
    """Register the fleet, one array for each team. Raises RuntimeError when the registry refuses any of it."""
    for team in range(factory.fleet.teams):
        items = [make_registration(number) for number in factory.fleet.instances_of(team)]
        status, _headers, body = exchange(port, factory.post("/registry/register", items, team))
        if status != 200 or b'"error"' in body:
            raise RuntimeError(f"the fleet could not be registered: {body[:600]!r}")
