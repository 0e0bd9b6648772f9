"""Who may do what: the table from action to permission, the four roles, and what a caller's groups grant.

The permissions live on Django groups; a token's group names are matched to them by name.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass

from django.contrib.auth.models import Group, Permission
from django.db import Error

from service_registry.database.outages import is_outage
from service_registry.database.retries import with_retries
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
"""The groups that exist after migration. Their permissions may be changed afterwards; these are only the first."""


@dataclass(frozen=True, slots=True)
class Action:
    """What a door does. The caller may try it when the caller has every permission of one of the alternatives."""

    name: str
    alternatives: tuple[frozenset[str], ...]

    def missing(self, granted: frozenset[str]) -> str | None:
        """The first permission the caller lacks of the first alternative, or None when the action is allowed."""
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
# Of all services, or of one's own.
READ_CHANGES = action("changes", {"view_change"}, {"view_instance"})
READ_METRICS = action("metrics", {"view_metrics"})

GRANTS_MAX_AGE_SECONDS = 5.0


class Grants:
    """Each Django group's permissions, read from the database at most every few seconds in a process.

    A request reads the snapshot without a lock. Two threads that find it too old both read; either result is good.
    """

    def __init__(self) -> None:
        self._by_group: dict[str, frozenset[str]] = {}
        self._read_at = float("-inf")

    @property
    def are_fresh(self) -> bool:
        """Whether the next use reads nothing."""
        return time.monotonic() - self._read_at <= GRANTS_MAX_AGE_SECONDS

    def keep_fresh(self) -> None:
        """Read again before they are too old, so that those who may not wait for the database need not."""
        if time.monotonic() - self._read_at > GRANTS_MAX_AGE_SECONDS / 2:
            self.renew()

    def of(self, groups: Iterable[str]) -> frozenset[str]:
        """The codenames that `groups` (names from a token) grant together."""
        if not self.are_fresh:
            self.renew()
        by_group = self._by_group
        return frozenset().union(*(by_group[name] for name in groups if name in by_group))

    def are_role(self, group: str) -> bool:
        """Whether `group` is a Django group that grants anything, and so speaks of a role and not of a team."""
        return group in self.current()

    def current(self) -> dict[str, frozenset[str]]:
        if time.monotonic() - self._read_at > GRANTS_MAX_AGE_SECONDS:
            self.renew()
        return self._by_group

    def forget(self) -> None:
        """Read again at the next use."""
        self._read_at = float("-inf")

    def renew(self) -> None:
        """Read again. While the database is away what was read last holds: nobody can change it there either."""
        try:
            with_retries(self.refresh)
        except Error as error:
            if not self._by_group or not is_outage(error):
                raise
            self._read_at = time.monotonic()

    def refresh(self) -> None:
        """Raises NotMigrated where no group grants anything: the roles are made by the last step of migration."""
        rows = Group.objects.filter(permissions__isnull=False).values_list(
            "name", "permissions__content_type__app_label", "permissions__codename"
        )
        by_group: dict[str, set[str]] = {}
        for name, app, codename in rows:
            granted = by_group.setdefault(name, set())
            if app == "service_registry":
                granted.add(codename)
        if not by_group:
            raise NotMigrated
        self._by_group = {name: frozenset(codenames) for name, codenames in by_group.items()}
        self._read_at = time.monotonic()


grants = Grants()


def provide_role_groups(using: str) -> None:
    """Create the role groups that are missing, with their permissions; leave those that exist as they are."""
    codenames = Permission.objects.using(using).filter(content_type__app_label="service_registry")
    for name, wanted in ROLE_GROUPS.items():
        group, created = Group.objects.using(using).get_or_create(name=name)
        if created:
            group.permissions.set(codenames.filter(codename__in=wanted))
