"""Who may do what: a denial for every cell of the table, and for foreign owners, alone and in arrays."""

from typing import Any

import pytest

from service_registry.permissions import ROLE_GROUPS
from tests.client import Answer, Api, registration

KEY = {"service_name": "web", "instance_id": "web-1"}
STATUS = "/registry/instance/web/web-1/status"
OVERRIDE = {"status": "DOWN", "reason": "x"}

# method, path, body, the permissions of which one suffices, whether an owner's name is needed with the first.
ACTIONS: dict[str, tuple[str, str, Any, list[tuple[str, ...]]]] = {
    "services": ("GET", "/registry/services", None, [("view_service", "view_instance")]),
    "discovery": ("GET", "/registry/services/web", None, [("view_service", "view_instance")]),
    "instance": ("GET", "/registry/instance/web/web-1", None, [("view_service", "view_instance")]),
    "instance by id": ("GET", "/registry/instance/web-1", None, [("view_service", "view_instance")]),
    "register": ("POST", "/registry/register", registration(), [("register_instance",)]),
    "register in arrays": ("POST", "/registry/register", [registration()], [("register_instance",)]),
    "heartbeat": ("POST", "/registry/heartbeat", KEY, [("heartbeat_instance",)]),
    "heartbeat in arrays": ("POST", "/registry/heartbeat", [KEY], [("heartbeat_instance",)]),
    "deregister": ("POST", "/registry/deregister", KEY, [("deregister_instance",), ("operate_instance",)]),
    "deregister in arrays": ("POST", "/registry/deregister", [KEY], [("deregister_instance",), ("operate_instance",)]),
    "override": ("PUT", STATUS, OVERRIDE, [("override_status",), ("operate_instance",)]),
    "clear override": ("DELETE", STATUS, None, [("override_status",), ("operate_instance",)]),
    "owners": ("PUT", "/registry/services/web/owners", {"owners": ["team-payments"]}, [("manage_service",)]),
    "release": ("POST", "/registry/services/web/release", {"reason": "x"}, [("operate_instance",)]),
    "changes": ("GET", "/registry/changes", None, [("view_change",)]),
    "changes of a service": ("GET", "/registry/changes?service=web", None, [("view_change",), ("view_instance",)]),
    "delete service": ("DELETE", "/registry/services/other", None, [("manage_service",)]),
}
OWNED = [
    name for name in ACTIONS if any(word in name for word in ("register", "heartbeat", "override", "of a service"))
]
# Whoever holds one of these needs not own the service.
OVER_ALL = ({"operate_instance"}, {"view_change"})
ROLES = [*ROLE_GROUPS, "no-role"]


def act(api: Api, name: str) -> Answer:
    method, path, body, _needed = ACTIONS[name]
    return api.call(method, path, body)


def code_of(answer: Answer) -> str | None:
    """The code of a refusal, also of an array's one item."""
    if answer.body and "results" in answer.json:
        return str(answer.json["results"][0].get("error", {}).get("code"))
    return answer.code if answer.status >= 400 else None


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("name", ACTIONS)
def test_a_role_may_do_what_the_table_says_and_nothing_else(payments: Api, role: str, name: str) -> None:
    payments.register()
    granted = ROLE_GROUPS.get(role, frozenset())
    allowed = any(granted.issuperset(needed) for needed in ACTIONS[name][3])
    answer = act(Api(role, "team-payments", subject="caller"), name)
    if allowed:
        assert code_of(answer) != "permission_denied"
        assert answer.status < 300 or answer.code == "service_not_found"
    else:
        assert (answer.status, answer.code) == (403, "permission_denied")
        assert answer.json["permission"] in ACTIONS[name][3][0]


@pytest.mark.parametrize("role", ROLE_GROUPS)
@pytest.mark.parametrize("name", OWNED)
def test_a_foreign_service_is_left_alone(payments: Api, role: str, name: str) -> None:
    payments.register()
    granted = ROLE_GROUPS[role]
    if not any(granted.issuperset(needed) for needed in ACTIONS[name][3]):
        assert act(Api(role, "team-other"), name).code == "permission_denied"
    elif any(granted.issuperset(needed) and set(needed) in OVER_ALL for needed in ACTIONS[name][3]):
        assert code_of(act(Api(role, "team-other"), name)) in {None, "None"}
    else:
        assert code_of(act(Api(role, "team-other"), name)) == "not_owner"


@pytest.mark.parametrize("name", ACTIONS)
def test_nobody_may_without_a_token(db: None, name: str) -> None:
    answer = act(Api(), name)
    assert (answer.status, answer.code) == (401, "not_authenticated")
    refused = act(Api(bearer="a.b.c"), name)
    assert (refused.status, refused.code) == (401, "token_invalid")
    assert refused.headers["www-authenticate"] == 'Bearer error="invalid_token"'
