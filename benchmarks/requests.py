"""What is sent. The population: instances `i-N`, twenty to a service, of a hundred teams; registered before anything is
measured."""

import functools
import http.client
import itertools
import json
import random
from collections.abc import Iterator, Sequence
from typing import Any

POPULATION = 50_000
TO_A_SERVICE = 20
TEAMS = 100
ARRAY = POPULATION // TEAMS
# Long enough for nothing to expire while other things are measured.
TTL_SECONDS = 3600


def registration(number: int) -> dict[str, Any]:
    return {
        "service_name": f"service-{number // TO_A_SERVICE}",
        "instance_id": f"i-{number}",
        "host": f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}",
        "port": 8080,
        "zone": "eu-1a",
        "tags": ["blue", "http2"],
        "metadata": {"version": "1.4.2", "commit": "a8a1c6d2", "team": "payments"},
        "ttl_seconds": TTL_SECONDS,
    }


def beat(number: int) -> dict[str, str]:
    return {"service_name": f"service-{number // TO_A_SERVICE}", "instance_id": f"i-{number}"}


def team_of(number: int) -> int:
    return number // TO_A_SERVICE % TEAMS


def fleet_of(team: int) -> list[int]:
    """A team's share of the population, which is ARRAY."""
    return [number for number in range(POPULATION) if team_of(number) == team]


class Writer:
    """Makes whole HTTP/1.1 requests. `tokens` are those of the teams."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self.tokens = tokens
        self.common = [f"Host: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n" for token in tokens]
        self.new = itertools.count(POPULATION)

    def post(self, path: str, body: Any, team: int) -> bytes:
        content = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\n{self.common[team]}Content-Type: application/json\r\n"
        return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content

    def get(self, path: str, more: str = "") -> bytes:
        return f"GET {path} HTTP/1.1\r\n{self.common[0]}{more}\r\n".encode()

    def registers(self) -> Iterator[bytes]:
        """New instances of services that are there: a fleet that grows."""
        for number in self.new:
            of = random.randrange(POPULATION)
            body = registration(of) | {"instance_id": f"new-{number}"}
            yield self.post("/registry/register", body, team_of(of))

    def registers_again(self) -> Iterator[bytes]:
        while True:
            number = random.randrange(POPULATION)
            yield self.post("/registry/register", registration(number), team_of(number))

    def heartbeats(self) -> Iterator[bytes]:
        while True:
            number = random.randrange(POPULATION)
            yield self.post("/registry/heartbeat", beat(number), team_of(number))

    @functools.cached_property
    def made_arrays(self) -> list[bytes]:
        """Made once: the client's own work must not stand in the figures. A sidecar of each team beats for its 500."""
        return [
            self.post("/registry/heartbeat", [beat(each) for each in fleet_of(team)], team) for team in range(TEAMS)
        ]

    def arrays(self) -> Iterator[bytes]:
        return itertools.cycle(random.sample(self.made_arrays, TEAMS))

    def discoveries(self) -> Iterator[bytes]:
        while True:
            yield self.get(f"/registry/services/service-{random.randrange(POPULATION // TO_A_SERVICE)}")

    def unchanged(self, ports: Sequence[int]) -> Iterator[bytes]:
        """Discovery by callers who know the answer already."""
        made: list[bytes] = []
        for number in range(20):
            path = f"/registry/services/service-{number}"
            tag = headers_of(ports[0], path, self.get(path))["etag"]
            made.append(self.get(path, f"If-None-Match: {tag}\r\n"))
        yield from itertools.cycle(made)


def headers_of(port: int, path: str, request: bytes) -> dict[str, str]:
    sent = dict(line.split(": ", 1) for line in request.decode().split("\r\n")[1:] if line)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path, headers=sent)
        answer = connection.getresponse()
        answer.read()
        return {name.lower(): value for name, value in answer.getheaders()}
    finally:
        connection.close()


def populate(port: int, writer: Writer) -> None:
    """Register the population, one array a team. Raises RuntimeError."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for team in range(TEAMS):
        request = writer.post("/registry/register", [registration(number) for number in fleet_of(team)], team)
        head, _, body = request.partition(b"\r\n\r\n")
        sent = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
        connection.request("POST", "/registry/register", body, sent)
        answer = connection.getresponse()
        said = answer.read()
        if answer.status != 200 or b'"error"' in said:
            raise RuntimeError(f"the population could not be registered: {said[:600]!r}")
    connection.close()
