"""The permission table: what each action needs, and what the role groups have.

Permissions belong to Django groups. The group names of a token are matched to them by name.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from django.contrib.auth.models import Group, Permission

from service_registry.exceptions import PermissionMissing

READ = frozenset({"view_service", "view_instance"})
WRITE_OWN = frozenset({"register_instance", "heartbeat_instance", "deregister_instance"})

OPERATE = frozenset(
    {"operate_instance", "override_status", "view_override", "view_change", "deny_caller", "view_denial"}
)

ROLE_GROUPS: dict[str, frozenset[str]] = {
    "registry-readers": READ | {"view_metrics"},
    "registry-services": READ | WRITE_OWN | {"override_status"},
    "registry-operators": READ | OPERATE | {"view_metrics"},
    "registry-admins": READ | WRITE_OWN | OPERATE | {"manage_service", "view_metrics"},
}
"""The groups that a migration creates. Their permissions can be changed afterwards."""


@dataclass(frozen=True, slots=True)
class Action:
    """An action of a front end, with alternative sets of permissions that allow it.

    A caller with every permission of one of the alternatives may try it.
    """

    name: str
    alternatives: tuple[frozenset[str], ...]

    def missing(self, granted: frozenset[str]) -> str | None:
        """Return the first missing permission, or None when the action is allowed.

        It is of the first alternative.
        """
        for needed in self.alternatives:  # any() would make a generator for each request
            if needed <= granted:
                return None
        return min(self.alternatives[0] - granted)

    def require(self, granted: frozenset[str]) -> None:
        """Raise PermissionMissing unless `granted` allows the action."""
        if missing := self.missing(granted):
            raise PermissionMissing(missing)


def action(name: str, *alternatives: Iterable[str]) -> Action:
    return Action(name, tuple(frozenset(needed) for needed in alternatives))


LIST_SERVICES = action("services", READ)
READ_INSTANCE = action("instance", READ)
WATCH = action("watch", READ)
REGISTER = action("register", {"register_instance"})
HEARTBEAT = action("heartbeat", {"heartbeat_instance"})
DEREGISTER = action("deregister", {"deregister_instance"}, {"operate_instance"})

OVERRIDE = action("override", {"override_status"}, {"operate_instance"})
MANAGE_SERVICE = action("manage services", {"manage_service"})
RELEASE = action("release", {"operate_instance"})
# Changes of all services, or of services that the caller owns.
READ_CHANGES = action("changes", {"view_change"}, {"view_instance"})
READ_METRICS = action("metrics", {"view_metrics"})


def provide_role_groups(using: str) -> None:
    """Create the missing role groups with their permissions; keep existing ones."""
    codenames = Permission.objects.using(using).filter(content_type__app_label="service_registry")
    for name, wanted in ROLE_GROUPS.items():
        group, created = Group.objects.using(using).get_or_create(name=name)
        if created:
            group.permissions.set(codenames.filter(codename__in=wanted))
