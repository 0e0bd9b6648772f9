"""Who asks: the verbs' view of a principal, an operator or the registry itself."""

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from django.conf import settings

from service_registry.permissions import grants


@dataclass(frozen=True, slots=True)
class Caller:
    """`actor` is the name that changes carry, `groups` decide ownership, `granted` are permission codenames."""

    actor: str
    groups: frozenset[str]
    granted: frozenset[str]

    def owns(self, owners: Iterable[str]) -> bool:
        return not self.groups.isdisjoint(owners)

    def may(self, codename: str) -> bool:
        return codename in self.granted

    def sees_authors(self, owners: Iterable[str]) -> bool:
        """Whether the caller may know who changed a service of these owners, and why."""
        return self.may("view_change") or self.owns(owners)

    def claimable_groups(self) -> list[str]:
        """The caller's groups that can own a service: those that are no role here and that not everybody holds."""
        return sorted(group for group in self.groups if not grants.are_role(group) and not is_ignored(group))


def is_ignored(group: str) -> bool:
    return any(fnmatchcase(group, pattern) for pattern in settings.REGISTRY_IGNORED_GROUPS)
