"""Health checks in registrations through every front end: accepted, or refused by the name of the member."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.client import token
from tests.front_ends.calls import REGISTRATION, TEAM
from tests.front_ends.client import Answer, FrontEnd, Request
from tests.front_ends.health_checks import HTTP, MEMBERS, VALID
from tests.front_ends.running import Case, Check, Run, expect_items
from tests.front_ends.servers import serving

SENTENCE = "REGISTRY_HEALTH_NETWORKS of this registry names no network to check"


@pytest.fixture
def bearer() -> str:
    return token("registry-services", TEAM, subject="owner")


@pytest.fixture(scope="module")
def fronts_without_networks(
    database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[FrontEnd, FrontEnd]]:
    nothing = {"REGISTRY_HEALTH_NETWORKS": ""}
    with serving(database_url, tmp_path_factory.mktemp("no-networks"), "-no-networks", variables=nothing) as started:
        yield started


def register(name: str, check: Any, bearer: str, verdict: Check) -> Case:
    return Case(name, Request("POST", "/registry/register", REGISTRATION | {"health_check": check}, bearer), verdict)


def names(path: str, sentence: str = "") -> Check:
    """Return a check that the answer is a refusal of this field, or of one below it, with a sentence."""

    def check(answer: Answer) -> str | None:
        errors = answer.json.get("errors", {}) if answer.code == "invalid" else {}
        found = errors and all(f"{field}.".startswith(f"{path}.") for field in errors)
        good = answer.status == 400 and found and sentence in str(errors)
        return None if good else f"expected an error of {path}, and the answer is {answer}"

    return check


def has_health(health: str | None) -> Check:
    def check(answer: Answer) -> str | None:
        good = answer.status == 200 and answer.json["health"] == health
        return None if good else f"expected health {health}, and the answer is {answer}"

    return check


def test_wrong_member_is_named(run: Run, bearer: str) -> None:
    cases = [
        register(f"{member}={value!r}", HTTP | {member: value}, bearer, names(f"health_check.{member}"))
        for member, value in MEMBERS
    ]
    run.run(cases, refused=True)
    run.conclude()


def test_valid_check_is_accepted(run: Run, bearer: str) -> None:
    cases = [register(str(check), check, bearer, has_health("unknown" if check else None)) for check in VALID]
    array = [REGISTRATION | {"instance_id": f"n-{number}", "health_check": check} for number, check in enumerate(VALID)]
    whole = expect_items(*[(201, None)] * len(array))
    run.run([*cases, Case("an array", Request("POST", "/registry/register", array, bearer), whole)])
    run.conclude()


def test_every_check_is_refused_with_a_sentence_where_no_network_is_named(
    fronts_without_networks: tuple[FrontEnd, FrontEnd], bearer: str
) -> None:
    run = Run(fronts_without_networks)
    cases = [
        register(str(check), check, bearer, names("health_check", SENTENCE)) for check in VALID if check is not None
    ]
    run.run(cases, refused=True)
    array = [REGISTRATION | {"instance_id": "plain"}, REGISTRATION | {"health_check": HTTP}]
    items = expect_items((201, None), (400, "invalid"))
    run.run(
        [
            Case("an array", Request("POST", "/registry/register", array, bearer), items),
            register("no check", None, bearer, has_health(None)),
        ]
    )
    run.conclude()
