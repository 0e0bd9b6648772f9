"""Callers who lose their access while a stream, a long poll and a blocking read of them are open.

Two web processes, and an issuer of the test's own, which can withdraw a key.
"""

import itertools
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from tests.client import Answer
from tests.identity.issuer_server import AUDIENCE, Issuer, jwk
from tests.server.event_stream import BackgroundStream, EventStream
from tests.server.registry import ROOT, Caller, Registry
from tests.waiting import wait_for

# Far less than the minute after which everything that waits is judged again, and more than any delay.
TIMEOUT_SECONDS = 40
PLACES = (0, 1)
numbers = itertools.count()

CREATE_ROLE = """
WITH made AS (INSERT INTO auth_group (name) VALUES ('{role}') RETURNING id)
INSERT INTO auth_group_permissions (group_id, permission_id)
SELECT made.id, p.id FROM made, auth_permission p
WHERE p.codename IN ('view_service', 'view_instance', 'register_instance')
"""
TAKE_AWAY = """
DELETE FROM auth_group_permissions USING auth_group g, auth_permission p
WHERE group_id = g.id AND permission_id = p.id AND g.name = '{role}' AND p.codename = ANY ('{{{permissions}}}')
"""


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with Issuer() as server:
        server.jwks = {"keys": [jwk("rsa", "RS256"), jwk("ec", "ES256")]}
        serving = threading.Thread(target=server.serve_forever, daemon=True)
        serving.start()
        yield server
        server.shutdown()
        serving.join()


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory, issuer: Issuer) -> Iterator[Registry]:
    variables = {"OIDC_ISSUER": issuer.url, "OIDC_AUDIENCE": AUDIENCE, "REGISTRY_METRICS_PUBLIC": "true"}
    with Registry(tmp_path_factory.mktemp("lost-access"), web_processes=2, variables=variables) as running:
        yield running


@pytest.fixture
def role(registry: Registry) -> str:
    """A group with permissions that no other test changes."""
    name = f"role-{next(numbers)}"
    registry.execute(CREATE_ROLE.format(role=name))
    return name


@dataclass
class OpenRequests:
    """A stream, and a long poll and a blocking read of a service that does not exist, at one web process."""

    service: str
    stream: EventStream
    poll: Caller
    read: Caller
    writer: Caller

    def last_event(self) -> tuple[str, Any]:
        last = list(self.stream.events())[-1]
        return last.kind, last.data

    def answers(self) -> list[Answer]:
        """Return the answers to the poll, to the read, and to a new write."""
        write = {"service_name": f"lost-{next(numbers)}", "instance_id": "a", "host": "10.0.0.1", "port": 1}
        return [self.poll.receive(), self.read.receive(), self.writer.call("POST", "/registry/register", write)]


@contextmanager
def open_requests(registry: Registry, bearer: str, place: int) -> Iterator[OpenRequests]:
    """Open a stream, a poll and a read, and wait until they wait."""
    port = registry.ports[place]
    poll, read, writer = (Caller(port, bearer, TIMEOUT_SECONDS) for _ in range(3))
    wait_for(lambda: writer.call("GET", "/registry/services?limit=1").status == 200)  # the role is new
    before = registry.read_metric("registry_subscribers", place)
    with ExitStack() as stack:
        stream = stack.enter_context(EventStream(port, bearer, timeout_seconds=TIMEOUT_SECONDS))
        index = writer.read_newest_index()
        service = f"awaited-{next(numbers)}"  # the changes of other tests must not answer
        for caller, path in ((poll, f"watch?service={service}&"), (read, f"services/{service}?")):
            stack.callback(caller.connection.close)
            caller.connection.request("GET", f"/registry/{path}index={index}&wait=5m", headers=caller.headers)
        stack.callback(writer.connection.close)
        wait_for(lambda: registry.read_metric("registry_subscribers", place) >= before + 3)
        yield OpenRequests(service, stream, poll, read, writer)


@contextmanager
def at_both_processes(registry: Registry, bearer: str) -> Iterator[list[OpenRequests]]:
    """Open the requests of a caller at both processes."""
    with ExitStack() as stack:
        yield [stack.enter_context(open_requests(registry, bearer, place)) for place in PLACES]


@contextmanager
def bystander(registry: Registry, issuer: Issuer) -> Iterator[None]:
    """Keep a stream of another caller open, which must go on."""
    bearer = issuer.token(sub="bystander", groups=["registry-services", "team"])
    with BackgroundStream(registry.ports[0], bearer) as stream:
        yield
        service = f"after-{next(numbers)}"
        registry.caller_with_token(bearer).register(service)
        wait_for(lambda: service in [change["service_name"] for change in stream.changes])
        assert not stream.ended.is_set()


def may_read(caller: Caller) -> bool:
    return caller.call("GET", "/registry/services").status == 200


def is_current(caller: Caller) -> bool:
    return "x-registry-stale" not in caller.call("GET", "/registry/services").headers


def run_command(registry: Registry, *arguments: str) -> None:
    subprocess.run([sys.executable, "manage.py", *arguments], env=registry.environment, cwd=ROOT, check=True)


def test_caller_whose_permission_is_taken_away_loses_what_it_has_open(
    registry: Registry, issuer: Issuer, role: str
) -> None:
    bearer = issuer.token(groups=[role, "team"])
    with bystander(registry, issuer), at_both_processes(registry, bearer) as opened:
        registry.execute(TAKE_AWAY.format(role=role, permissions="view_instance,register_instance"))
        for each in opened:
            refusal = {"code": "permission_denied", "permission": "view_instance"}
            assert each.last_event() == ("forbidden", refusal)
            poll, read, write = each.answers()
            assert [(answer.status, answer.code) for answer in (poll, read, write)] == [(403, "permission_denied")] * 3
            assert poll.json["permission"] == read.json["permission"] == "view_instance"


def test_caller_who_keeps_what_it_needs_goes_on(registry: Registry, issuer: Issuer, role: str) -> None:
    """It is judged again, and stays allowed to read."""
    bearer = issuer.token(groups=[role, "team"])
    with open_requests(registry, bearer, 0) as each:
        registry.execute(TAKE_AWAY.format(role=role, permissions="register_instance"))
        wait_for(lambda: each.writer.call("POST", "/registry/register", []).status == 403)
        registry.caller_with_token(issuer.token(groups=["registry-services", "team"])).register(each.service)
        assert each.service in (change["service_name"] for change in each.stream.changes())
        assert (each.poll.receive().status, each.read.receive().status) == (200, 200)


@pytest.mark.parametrize(("flags", "claims"), [([], {}), (["--client"], {"azp": "mallory"})], ids=["subject", "client"])
def test_caller_who_is_denied_loses_what_it_has_open_until_that_is_lifted(
    registry: Registry, issuer: Issuer, flags: list[str], claims: dict[str, str]
) -> None:
    subject = "of-a-client" if flags else "mallory"
    bearer = issuer.token(sub=subject, groups=["registry-services", "team"], **claims)
    refusal = {"code": "permission_denied", "reason": "denied"}
    with bystander(registry, issuer), at_both_processes(registry, bearer) as opened:
        run_command(registry, "deny_caller", "mallory", *flags, "--reason", "floods the registry", "--for", "1h")
        for each in opened:
            assert each.last_event() == ("forbidden", refusal)
            found = [(answer.status, answer.json.get("code"), answer.json.get("reason")) for answer in each.answers()]
            assert found == [(403, "permission_denied", "denied")] * 3
    run_command(registry, "deny_caller", "mallory", *flags, "--lift", "--reason", "it was mended")
    for caller in [registry.caller_with_token(bearer, place) for place in PLACES]:
        wait_for(partial(may_read, caller))


def test_denial_stays_in_force_while_the_database_is_away(registry: Registry, issuer: Issuer) -> None:
    caller = registry.caller_with_token(issuer.token(sub="cut-off", groups=["registry-readers"]))
    other = registry.caller_with_token(issuer.token(sub="other", groups=["registry-readers"]))
    run_command(registry, "deny_caller", "cut-off", "--reason", "abuse")
    wait_for(lambda: caller.call("GET", "/registry/services").status == 403)
    with registry.stopped_postgres():
        # The list is read again, and fails to be, before the age of the replica shows.
        wait_for(lambda: "x-registry-stale" in other.call("GET", "/registry/services").headers)
        assert caller.call("GET", "/registry/services").status == 403
    run_command(registry, "deny_caller", "cut-off", "--lift", "--reason", "over")
    for reader in [registry.caller_with_token(issuer.token(groups=["registry-readers"]), place) for place in PLACES]:
        wait_for(partial(is_current, reader))


def test_caller_whose_key_is_withdrawn_loses_what_it_has_open(registry: Registry, issuer: Issuer) -> None:
    bearer = issuer.token("ec", "ES256", groups=["registry-services", "team"])
    with bystander(registry, issuer), at_both_processes(registry, bearer) as opened:
        issuer.jwks = {"keys": [jwk("rsa", "RS256")]}
        for place in PLACES:  # a key that is not known makes a process fetch the keys
            unknown = registry.caller_with_token(issuer.token(kid="unknown"), place)
            assert unknown.call("GET", "/registry/services").status == 401
        for each in opened:
            assert each.last_event() == ("expired", {"code": "token_invalid"})
            assert [(answer.status, answer.code) for answer in each.answers()] == [(401, "token_invalid")] * 3
