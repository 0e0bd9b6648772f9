"""The permission table: what each action needs, and what the role groups have.

Permissions belong to Django groups. The group names of a token are matched to them by name.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass

from django.contrib.auth.models import Group, Permission
from django.db import Error

from service_registry.database.outages import is_outage
from service_registry.database.transactions import with_retries
from service_registry.exceptions import NotMigrated, PermissionMissing

READ = frozenset({"view_service", "view_instance"})
WRITE_OWN = frozenset({"register_instance", "heartbeat_instance", "deregister_instance"})

OPERATE = frozenset({"operate_instance", "override_status", "view_override", "view_change"})

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
        if any(needed <= granted for needed in self.alternatives):
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

CACHE_SECONDS = 5.0


class PermissionCache:
    """A cache of the permissions of each Django group, refreshed every few seconds.

    A request reads the snapshot without a lock. Two threads that find it too old both refresh it; either result is
    correct.
    """

    def __init__(self) -> None:
        self._by_group: dict[str, frozenset[str]] = {}
        self._read_at = float("-inf")

    @property
    def is_fresh(self) -> bool:
        """Return whether the next use reads nothing from the database."""
        return time.monotonic() - self._read_at <= CACHE_SECONDS

    def refresh_ahead(self) -> None:
        """Refresh at half the age, so that the event loop does not wait for the database."""
        if time.monotonic() - self._read_at > CACHE_SECONDS / 2:
            self.refresh()

    def granted_to(self, groups: Iterable[str]) -> frozenset[str]:
        """Return the codenames that `groups`, names from a token, have together."""
        by_group = self._current()
        return frozenset().union(*(by_group[name] for name in groups if name in by_group))

    def is_role(self, group: str) -> bool:
        """Return whether `group` is a Django group with permissions: a role, not a team."""
        return group in self._current()

    def invalidate(self) -> None:
        """Refresh at the next use."""
        self._read_at = float("-inf")

    def refresh(self) -> None:
        """Read the permissions of the groups.

        During an outage the last snapshot stays valid: the database cannot change either.

        Raises NotMigrated where no group has permissions, because the last step of a migration creates the roles.
        """
        try:
            self._by_group = with_retries(read_permissions)
        except Error as error:
            if not self._by_group or not is_outage(error):
                raise
        self._read_at = time.monotonic()

    def _current(self) -> dict[str, frozenset[str]]:
        if not self.is_fresh:
            self.refresh()
        return self._by_group


permission_cache = PermissionCache()


def read_permissions() -> dict[str, frozenset[str]]:
    """Return the codenames of the registry's permissions by group.

    Raises NotMigrated where no group has any.
    """
    rows = Group.objects.filter(permissions__isnull=False).values_list(
        "name", "permissions__content_type__app_label", "permissions__codename"
    )
    by_group: dict[str, set[str]] = {}
    for name, app, codename in rows:
        # A group with permissions of other apps is a role, too.
        granted = by_group.setdefault(name, set())
        if app == "service_registry":
            granted.add(codename)
    if not by_group:
        raise NotMigrated
    return {name: frozenset(codenames) for name, codenames in by_group.items()}


def provide_role_groups(using: str) -> None:
    """Create the missing role groups with their permissions; keep existing ones."""
    codenames = Permission.objects.using(using).filter(content_type__app_label="service_registry")
    for name, wanted in ROLE_GROUPS.items():
        group, created = Group.objects.using(using).get_or_create(name=name)
        if created:
            group.permissions.set(codenames.filter(codename__in=wanted))
