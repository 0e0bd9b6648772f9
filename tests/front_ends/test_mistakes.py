"""Deliberate mistakes in both front ends, each of which must make cases fail."""

import json
from collections.abc import Callable, Iterator
from urllib.parse import quote

import pytest

from tests.client import token
from tests.front_ends.calls import CALLS, OTHER_TEAM, ROLES, TEAM
from tests.front_ends.cases import (
    bad_fields,
    bad_items,
    bad_json,
    bad_queries,
    permission_matrix,
    superfluous_queries,
)
from tests.front_ends.client import FrontEnd, Request
from tests.front_ends.running import Case, Run
from tests.front_ends.servers import serving

# Each seventh case is enough to find a mistake.
SOME = 7
PARTS: dict[str, Callable[[str], list[Case]]] = {
    "permissions": lambda _bearer: [*permission_matrix({"no-role": frozenset()}, TEAM)],
    "ownership": lambda _bearer: [*permission_matrix({"registry-services": ROLES["registry-services"]}, OTHER_TEAM)],
    "fields": lambda bearer: bad_fields(bearer)[::SOME],
    "items": bad_items,
    "queries": lambda bearer: [*bad_queries(bearer), *superfluous_queries(bearer)][::SOME],
    "JSON": lambda bearer: bad_json(bearer)[::SOME],
}
# The operation checks `view_change` again when the query names no service, and the ASGI handler an array on its thread.
CHECKED_TWICE = (
    {"changes", "register in an array", "heartbeat in an array", "deregister in an array"},
    {"changes"},
)


@pytest.fixture(scope="module")
def mistaken(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FrontEnd, FrontEnd]]:
    place = tmp_path_factory.mktemp("mistakes")
    with serving(database_url, place, "-mistaken", module="tests.front_ends.mistakes") as started:
        yield started


def make(front: FrontEnd, name: str) -> dict[str, str]:
    """Make a mistake, if `name` is not empty. Returns the parts that must find the mistakes, by mistake."""
    mistakes: dict[str, str] = json.loads(front.ask(Request("POST", f"/mistakes/{quote(name)}")).body)
    return mistakes


def failing(front: FrontEnd, part: str) -> set[str]:
    """Return the names of the cases of a part that fail."""
    run = Run([front])
    run.run(PARTS[part](token("registry-admins", TEAM, subject="admin")))
    return {failure.case for failure in run.failures}


@pytest.mark.parametrize("place", [0, 1], ids=["asgi", "wsgi"])
def test_each_mistake_makes_cases_fail(mistaken: tuple[FrontEnd, FrontEnd], place: int) -> None:
    front = mistaken[place]
    found = {}
    for name, part in make(front, "").items():
        make(front, name)
        found[name] = failing(front, part)
        make(front, "none")
    overlooked = [name for name, cases in found.items() if not cases and not is_bypassed(front, name)]
    assert overlooked == []
    by_handlers = {case for name, cases in found.items() if "does not check" in name for case in cases}
    guarded = {call.name for call in CALLS if any(case.startswith(f"{call.name} by") for case in by_handlers)}
    assert {call.name for call in CALLS} - guarded == CHECKED_TWICE[place], "calls whose handler or view has no mistake"


def is_bypassed(front: FrontEnd, name: str) -> bool:
    """Return whether the mistake is in a DRF view whose calls this front end answers by an ASGI handler."""
    return front.name == "asgi" and name.startswith(("RegistrationViewSet", "WatchViewSet"))


@pytest.mark.parametrize("place", [0, 1], ids=["asgi", "wsgi"])
def test_without_a_mistake_no_case_fails(mistaken: tuple[FrontEnd, FrontEnd], place: int) -> None:
    front = mistaken[place]
    make(front, "none")
    assert [case for part in PARTS for case in failing(front, part)] == []
