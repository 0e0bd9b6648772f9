"""Ownership of services through every front end."""

from itertools import count
from typing import Any

import pytest

from tests.client import registration, token
from tests.front_ends.calls import (
    CALLS,
    INSTANCE,
    KEY,
    OTHER_INSTANCE,
    OTHER_TEAM,
    REGISTRATION,
    SERVICE,
    STATUS_PATH,
    TEAM,
)
from tests.front_ends.client import NAMESPACE, FrontEnd, Request
from tests.front_ends.running import Case, Run, expect, expect_items, request_of

OVERRIDE = {"status": "DOWN", "reason": "disk"}
FOREIGN = (403, "not_owner")
numbers = count()


def team(name: str = TEAM) -> str:
    return token("registry-services", name, subject=name)


def test_write_in_a_foreign_service_is_not_owner_whatever_exists(run: Run) -> None:
    stranger = team(OTHER_TEAM)
    absent = KEY | {"instance_id": "absent"}
    run.run(
        [
            Case("register", Request("POST", "/registry/register", REGISTRATION | absent, stranger), expect(*FOREIGN)),
            *(
                Case(f"{name} {key}", Request("POST", f"/registry/{name}", key, stranger), expect(*FOREIGN))
                for name in ("heartbeat", "deregister")
                for key in (KEY, absent, KEY | {"epoch": 2**50})
            ),
            *(
                Case(f"{method} {path}", Request(method, path, body, stranger), expect(*FOREIGN))
                for method, body in (("PUT", OVERRIDE), ("DELETE", None))
                for path in (STATUS_PATH, STATUS_PATH.replace(INSTANCE, "absent"))
            ),
        ],
        refused=True,
    )
    run.conclude()


def test_array_of_own_and_foreign_items_has_a_result_for_each(run: Run) -> None:
    """The array has two own items, a foreign one, and one of a service that does not exist."""
    items: dict[str, list[tuple[int, str | None]]] = {
        "register": [(200, None), FOREIGN, (201, None), (200, None)],
        "heartbeat": [(200, None), FOREIGN, (404, "instance_not_found"), (200, None)],
        "deregister": [(204, None), FOREIGN, (404, "instance_not_found"), (204, None)],
    }
    for front in run.fronts:
        foreign = registration("foreign", INSTANCE, namespace=NAMESPACE)
        assert front.ask(Request("POST", "/registry/register", foreign, team(OTHER_TEAM))).status in {200, 201}
    cases = []
    for name, outcomes in items.items():
        keys = [
            (SERVICE, INSTANCE),
            ("foreign", INSTANCE),
            (f"new-{SERVICE}", INSTANCE),
            (SERVICE, OTHER_INSTANCE),
        ]
        body: list[dict[str, Any]] = [
            registration(service_name, instance_id, namespace=NAMESPACE)
            if name == "register"
            else {"namespace": NAMESPACE, "service_name": service_name, "instance_id": instance_id}
            for service_name, instance_id in keys
        ]
        cases.append(Case(name, Request("POST", f"/registry/{name}", body, team()), expect_items(*outcomes)))
    run.run(cases)
    run.conclude()


def test_operator_deregisters_and_overrides_in_foreign_services(run: Run) -> None:
    operator = token("registry-operators", OTHER_TEAM, subject="operator")
    permitted = {"deregister": 204, "deregister in an array": None, "override": 200, "clear override": 200}
    run.run(
        [
            Case(
                call.name,
                request_of(call, operator),
                expect(call.succeeds) if not call.item else expect_items((call.item, None)),
            )
            for call in CALLS
            if call.name in permitted
        ]
    )
    run.conclude()


def claims(instance_id: str = INSTANCE, **fields: Any) -> dict[str, Any]:
    """Return a registration that creates its service."""
    return registration(f"new-{SERVICE}", instance_id, namespace=NAMESPACE, **fields)


def test_first_registration_claims_the_service(run: Run) -> None:
    one, several = team(), token("registry-services", TEAM, OTHER_TEAM, "offline_access", subject="several")
    none = token("registry-services", "uma_authorization", "default-roles-shop", subject="none")
    cases = [
        ("a caller of one team", one, {}, expect(201)),
        ("a caller of one team who names it", one, {"owner": TEAM}, expect(201)),
        ("a caller of several", several, {}, expect(400, "owner_required", fields=["owner"])),
        ("a caller of several who names one", several, {"owner": OTHER_TEAM}, expect(201)),
        ("a caller of none", none, {}, expect(*FOREIGN)),
        ("a team of another caller", one, {"owner": OTHER_TEAM}, expect(*FOREIGN)),
        ("a role", one, {"owner": "registry-services"}, expect(*FOREIGN)),
        ("a group that every account has", several, {"owner": "offline_access"}, expect(*FOREIGN)),
    ]
    run.run(
        [
            Case(name, Request("POST", "/registry/register", claims(**more), bearer), check)
            for name, bearer, more, check in cases
        ]
    )
    array = [claims("a", owner="nobodys"), claims("b", owner=TEAM), claims("c"), claims("d", owner=OTHER_TEAM)]
    outcomes = ((403, "not_owner"), (201, None), (201, None), (201, None))
    unnamed = [claims("a"), claims("b")]
    required = (400, "owner_required")
    run.run(
        [
            Case("an array", Request("POST", "/registry/register", array, several), expect_items(*outcomes)),
            Case(
                "without owner",
                Request("POST", "/registry/register", unnamed, several),
                expect_items(required, required),
            ),
        ]
    )
    run.conclude()


class Service:
    """A service in the namespace `default`, for requests to both front ends."""

    def __init__(self) -> None:
        self.name = f"story-{next(numbers)}"
        self.admin = token("registry-admins", subject="admin")

    def set_owners(self, front: FrontEnd, *owners: str) -> int:
        return front.ask(
            Request("PUT", f"/registry/services/{self.name}/owners", {"owners": owners}, self.admin)
        ).status

    def outcomes(self, front: FrontEnd, bearer: str) -> list[tuple[int, str | None]]:
        """Return status and code of a registration and a heartbeat, each as an object and as an array."""
        register, beat = registration(self.name, INSTANCE), {"service_name": self.name, "instance_id": INSTANCE}
        found: list[tuple[int, str | None]] = []
        for path, body in (("register", register), ("heartbeat", beat)):
            alone = front.ask(Request("POST", f"/registry/{path}", body, bearer))
            array = front.ask(Request("POST", f"/registry/{path}", [body], bearer))
            found += [(alone.status, alone.code), *array.items]
        return found


OWN = [(200, None)] * 4


@pytest.mark.parametrize("place", [0, 1], ids=["asgi", "wsgi"])
def test_owners_set_by_one_front_end_are_respected_by_both(fronts: tuple[FrontEnd, FrontEnd], place: int) -> None:
    service, first, second = Service(), team("team-first"), team("team-second")
    assert service.set_owners(fronts[place], "team-first") == 201
    assert service.outcomes(fronts[0], first)[0] == (201, None)
    for owners, ours, theirs in (
        (["team-first"], OWN, [FOREIGN] * 4),
        (["team-first", "team-second"], OWN, OWN),
        (["team-second"], [FOREIGN] * 4, OWN),
    ):
        assert service.set_owners(fronts[place], *owners) == 200
        for front in fronts:
            assert (service.outcomes(front, first), service.outcomes(front, second)) == (ours, theirs), (
                front.name,
                owners,
            )


@pytest.mark.parametrize("place", [0, 1], ids=["asgi", "wsgi"])
def test_name_of_a_deleted_service_is_reserved_to_its_last_owner(fronts: tuple[FrontEnd, FrontEnd], place: int) -> None:
    service, first, second = Service(), team("team-first"), team("team-second")
    assert service.set_owners(fronts[place], "team-first") == 201
    assert service.set_owners(fronts[place]) == 400
    assert service.outcomes(fronts[1 - place], second) == [FOREIGN] * 4
    deleted = fronts[place].ask(Request("DELETE", f"/registry/services/{service.name}", None, service.admin))
    assert deleted.status == 204
    for front in fronts:  # the name is kept for its last owner
        assert service.outcomes(front, second)[:2] == [FOREIGN] * 2
    assert service.outcomes(fronts[place], first) == [(201, None), *OWN[1:]]
