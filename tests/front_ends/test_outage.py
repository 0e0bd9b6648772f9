"""Requests through every front end while the database is unreachable."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count

import pytest

from tests.client import registration, token
from tests.front_ends.calls import CALLS, TEAM
from tests.front_ends.cases import OBJECTS, bad_queries
from tests.front_ends.client import FrontEnd, Request
from tests.front_ends.running import Case, Run, expect, request_of, succeeds
from tests.front_ends.servers import unreachable
from tests.waiting import wait_for

FROM_MEMORY = {"list", "list of names", "discovery"}
FROM_DATABASE = {"instance", "instance by id", "changes", "changes of a service"}
WRITES = {call.name for call in CALLS if call.method in {"POST", "PUT", "DELETE"}}
ADMIN_GROUPS = ("registry-admins", TEAM)
numbers = count()


@pytest.fixture
def bearer() -> str:
    return token(*ADMIN_GROUPS, subject="admin")


@contextmanager
def outage(database_url: str, asgi: FrontEnd, bearer: str) -> Iterator[None]:
    """Make the database unreachable while the ASGI process has read the change log to its end, and again afterwards."""
    wait_for_replica(asgi, bearer)
    with unreachable(database_url):
        yield
    wait_for_replica(asgi, bearer)


def wait_for_replica(asgi: FrontEnd, bearer: str) -> None:
    """Wait until the ASGI process returns from memory what it registers now."""
    name = f"outage-{next(numbers)}"
    body = registration(name, "i-1", namespace="outage")

    def is_current() -> bool:
        asgi.ask(Request("POST", "/registry/register", body, bearer))
        answer = asgi.ask(Request("GET", f"/registry/services/{name}?namespace=outage", None, bearer))
        return answer.status == 200 and "x-registry-stale" not in answer.headers

    wait_for(is_current)


def test_call_that_needs_the_database_is_unavailable_during_an_outage(run: Run, database_url: str, bearer: str) -> None:
    cases = [
        Case(call.name, request_of(call, bearer), expect(503, "unavailable"))
        for call in CALLS
        if call.name in WRITES | FROM_DATABASE
    ]
    run.run(cases, refused=True, during=outage(database_url, run.fronts[0], bearer))
    run.conclude()
    cases = [Case(call.name, request_of(call, bearer), succeeds(call), of_empty=call.of_empty) for call in CALLS]
    run.run([case for case, call in zip(cases, CALLS, strict=True) if call.compared])
    run.conclude()


def test_read_from_memory_succeeds_during_an_outage(
    fronts: tuple[FrontEnd, FrontEnd], database_url: str, bearer: str
) -> None:
    """Plain WSGI has no memory of the catalogue."""
    for front, check in zip(fronts, (expect(200), expect(503, "unavailable")), strict=True):
        alone = replace(front, namespace=f"{front.name}-outage")  # its data differ from those of the other front end
        run = Run([alone])
        cases = [Case(call.name, request_of(call, bearer), check) for call in CALLS if call.name in FROM_MEMORY]
        run.run(cases, during=outage(database_url, fronts[0], bearer))
        alone.close()
        run.conclude()


def test_refusal_is_the_same_during_an_outage(run: Run, database_url: str, bearer: str) -> None:
    nobody = token("no-role", TEAM, subject="nobody")
    called = [call for call in CALLS if call.path.startswith("/registry/")]
    cases = [Case(f"{call.name} without a token", request_of(call, None), expect(401)) for call in called]
    cases += [
        Case(f"{call.name} without permission", request_of(call, nobody), expect(403, "permission_denied"))
        for call in called
    ]
    cases += [
        Case(
            f"{call.name} with an unknown field",
            request_of(call, bearer, body=call.body | {"bogus": 1}),
            expect(400, "invalid", fields=["bogus"]),
        )
        for call in OBJECTS
    ]
    cases += [case for case in bad_queries(bearer) if case.request.path.startswith("/registry/services?")]
    run.run(cases, refused=True, during=outage(database_url, run.fronts[0], bearer))
    run.conclude()
