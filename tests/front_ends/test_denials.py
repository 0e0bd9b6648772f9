"""Every call by denied callers through every front end, and the end of a denial."""

from functools import partial
from typing import Any

import psycopg
from django.conf import settings

from tests.client import token
from tests.front_ends.calls import CALLS, TEAM
from tests.front_ends.client import FrontEnd, Request
from tests.front_ends.running import Case, Run, expect, request_of
from tests.waiting import wait_for

DENY = """
INSERT INTO service_registry_denial (kind, issuer, name, reason, actor) VALUES (%s, %s, %s, 'abuse', 'oscar')
"""


def is_denied(front: FrontEnd, bearer: str) -> bool:
    return front.ask(Request("GET", "/registry/services?limit=1", bearer=bearer)).status == 403


def is_admitted(front: FrontEnd, bearer: str) -> bool:
    return front.ask(Request("GET", "/registry/services?limit=1", bearer=bearer)).status == 200


def write(database_url: str, statement: str, *values: Any) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute(statement, values)


def test_every_call_of_a_denied_subject_is_refused(run: Run, database_url: str) -> None:
    bearer = token("registry-admins", TEAM, subject="mallory")
    write(database_url, DENY, "subject", settings.OIDC_ISSUER, "mallory")
    for front in run.fronts:
        wait_for(partial(is_denied, front, bearer))
    refused = expect(403, "permission_denied", reason="denied")
    run.run([Case(f"{call.name}, denied", request_of(call, bearer), refused) for call in CALLS], refused=True)
    write(database_url, "UPDATE service_registry_denial SET lifted_at = now() WHERE name = %s", "mallory")
    for front in run.fronts:
        wait_for(partial(is_admitted, front, bearer))
    run.conclude()


def test_denial_ends_by_itself(run: Run, database_url: str) -> None:
    bearer = token("registry-readers", subject="for-a-moment")
    write(database_url, DENY, "subject", settings.OIDC_ISSUER, "for-a-moment")
    for front in run.fronts:
        wait_for(partial(is_denied, front, bearer))
    write(
        database_url,
        "UPDATE service_registry_denial SET created_at = now() - interval '2 s', until = now() - interval '1 s' "
        "WHERE name = %s",
        "for-a-moment",
    )
    for front in run.fronts:
        wait_for(partial(is_admitted, front, bearer))
