"""List every call of the API with the permissions it needs, independently of the code's own table."""

from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from tests.client import registration
from tests.front_ends.client import NAMESPACE, Pairs

PERMISSIONS = frozenset(
    {
        *("view_service", "view_instance", "register_instance", "heartbeat_instance", "deregister_instance"),
        *("operate_instance", "override_status", "view_override", "view_change", "manage_service", "view_metrics"),
        *("deny_caller", "view_denial"),
    }
)
ROLES = {
    "registry-readers": frozenset({"view_service", "view_instance", "view_metrics"}),
    "registry-services": frozenset(
        {
            *("view_service", "view_instance", "override_status"),
            *("register_instance", "heartbeat_instance", "deregister_instance"),
        }
    ),
    "registry-operators": frozenset(
        {
            *("view_service", "view_instance", "view_metrics", "view_override", "view_change"),
            *("operate_instance", "override_status", "deny_caller", "view_denial"),
        }
    ),
    "registry-admins": PERMISSIONS,
    "no-role": frozenset(),
}
TEAM, OTHER_TEAM = "team-payments", "team-other"

# Replaced by a name for each case, so that no case changes the data of another.
SERVICE = "CASE"
INSTANCE = "i-1"
OTHER_INSTANCE = f"of-{SERVICE}"  # an id that no other service has
KEY = {"namespace": NAMESPACE, "service_name": SERVICE, "instance_id": INSTANCE}
REGISTRATION = registration(SERVICE, INSTANCE, namespace=NAMESPACE)
STATUS_PATH = f"/registry/instance/{SERVICE}/{INSTANCE}/status?namespace={NAMESPACE}"
HEALTH_PATH = f"/registry/services/{SERVICE}/health?namespace={NAMESPACE}"
INSTANCE_HEALTH_PATH = f"/registry/instance/{SERVICE}/{INSTANCE}/health?namespace={NAMESPACE}"
DISCOVERY_PATH = f"/registry/services/{SERVICE}?namespace={NAMESPACE}"
OVERRIDE = {"status": "DOWN", "reason": "disk"}

READ = frozenset({"view_service", "view_instance"})


@dataclass(frozen=True)
class Call:
    """A call of the API.

    Attributes:
        needs: alternatives, each a set of permissions that are needed together.
        owned: True when the caller must own the service.
        owned_unless: a permission that replaces ownership.
        succeeds: status of a successful answer.
        item: status of an item in the answer to an array; 0 when the body is an object.
        of_empty: True when the service must have no instances.
        compared: False when successful answers of the front ends may differ.
    """

    name: str
    method: str
    path: str
    needs: tuple[frozenset[str], ...]
    body: Any = None
    owned: bool = False
    owned_unless: str | None = None
    succeeds: int = 200
    item: int = 0
    of_empty: bool = False
    compared: bool = True
    headers: Pairs = field(default=())

    def missing(self, granted: frozenset[str]) -> str | None:
        """Return the permission that a refusal names, or None when the call is allowed."""
        if any(needed <= granted for needed in self.needs):
            return None
        return min(self.needs[0] - granted)

    def needs_owner(self, granted: frozenset[str]) -> bool:
        return self.owned and self.owned_unless not in granted


def one(*permissions: str) -> tuple[frozenset[str], ...]:
    """Return alternatives of one permission each."""
    return tuple(frozenset({permission}) for permission in permissions)


def operation(name: str, body: dict[str, Any], succeeds: int, *needs: str) -> list[Call]:
    """Return the calls of an operation, with an object and with an array."""
    path, unless = f"/registry/{name}", needs[1] if len(needs) > 1 else None
    owned: dict[str, Any] = {"owned": True, "owned_unless": unless}
    return [
        Call(name, "POST", path, one(*needs), body, succeeds=succeeds, **owned),
        Call(f"{name} in an array", "POST", path, one(*needs), [body], item=succeeds, **owned),
    ]


CALLS = (
    Call("list", "GET", f"/registry/services?namespace={NAMESPACE}&limit=1", (READ,)),
    Call("list of names", "GET", f"/registry/services?namespace={NAMESPACE}&name={SERVICE}&view=summary", (READ,)),
    Call(
        "list after an index",
        "GET",
        f"/registry/services?namespace={NAMESPACE}&limit=1&index=00000000-1&wait=1ms",
        (READ,),
    ),
    Call("head of the list", "HEAD", "/registry/services?limit=1", (READ,)),
    Call("discovery", "GET", DISCOVERY_PATH, (READ,)),
    Call("discovery after an index", "GET", f"{DISCOVERY_PATH}&index=00000000-1&wait=1ms", (READ,)),
    Call("discovery of the past", "GET", f"{DISCOVERY_PATH}&at=2999-01-01T00:00:00Z", (READ,), succeeds=400),
    Call("head of discovery", "HEAD", DISCOVERY_PATH, (READ,)),
    Call("instance", "GET", f"/registry/instance/{SERVICE}/{INSTANCE}?namespace={NAMESPACE}", (READ,)),
    Call("instance by id", "GET", f"/registry/instance/{OTHER_INSTANCE}?namespace={NAMESPACE}", (READ,)),
    Call("health of a service", "GET", HEALTH_PATH, (READ,)),
    Call("head of the health of a service", "HEAD", HEALTH_PATH, (READ,)),
    Call("health of two", "GET", f"{HEALTH_PATH}&require=2", (READ,), succeeds=503),
    Call("health of an instance", "GET", f"{INSTANCE_HEALTH_PATH}&require=1", (READ,)),
    Call("watch", "GET", f"/registry/watch?namespace={NAMESPACE}", (READ,)),
    Call("watch of the past", "GET", "/registry/watch?index=00000000-1", (READ,), succeeds=410),
    Call("stream", "GET", "/registry/watch", (READ,), compared=False, headers=(("Accept", "text/event-stream"),)),
    *operation("register", REGISTRATION, 200, "register_instance"),
    *operation("heartbeat", KEY, 200, "heartbeat_instance"),
    *operation("deregister", KEY, 204, "deregister_instance", "operate_instance"),
    Call(
        "override",
        "PUT",
        STATUS_PATH,
        one("override_status", "operate_instance"),
        OVERRIDE,
        owned=True,
        owned_unless="operate_instance",
    ),
    Call(
        "clear override",
        "DELETE",
        STATUS_PATH,
        one("override_status", "operate_instance"),
        owned=True,
        owned_unless="operate_instance",
    ),
    Call(
        "owners",
        "PUT",
        f"/registry/services/{SERVICE}/owners?namespace={NAMESPACE}",
        one("manage_service"),
        {"owners": [TEAM]},
    ),
    Call(
        "release",
        "POST",
        f"/registry/services/{SERVICE}/release?namespace={NAMESPACE}",
        one("operate_instance"),
        {"reason": "scaled in"},
    ),
    Call("delete service", "DELETE", DISCOVERY_PATH, one("manage_service"), succeeds=204, of_empty=True),
    Call("changes", "GET", f"/registry/changes?namespace={NAMESPACE}&limit=1", one("view_change")),
    Call(
        "changes of a service",
        "GET",
        f"/registry/changes?namespace={NAMESPACE}&service={SERVICE}",
        one("view_change", "view_instance"),
        owned=True,
        owned_unless="view_change",
    ),
    Call("metrics", "GET", "/metrics", one("view_metrics"), compared=False),
)


def groups() -> dict[str, frozenset[str]]:
    """Return Django groups that separate the rules of the table, as permissions by name.

    They grant all permissions but one, all but the alternatives of a call, or only one alternative of a call.
    """
    lacking = {frozenset({permission}) for permission in PERMISSIONS}
    lacking |= {frozenset(chain(*call.needs)) for call in CALLS}
    least = {needed for call in CALLS for needed in call.needs}
    return {f"all-but-{'-'.join(sorted(without))}": PERMISSIONS - without for without in lacking} | {
        f"only-{'-'.join(sorted(needed))}": needed for needed in least
    }
