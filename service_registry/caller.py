"""The caller of an operation: a principal, an operator or the registry itself."""

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from django.conf import settings

from service_registry.access_rules import access_rules


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller of an operation.

    `actor` is the name in the change log, `groups` decide ownership, `granted` are permission codenames.
    """

    actor: str
    groups: frozenset[str]
    granted: frozenset[str]

    def owns(self, owners: Iterable[str]) -> bool:
        return not self.groups.isdisjoint(owners)

    def may(self, codename: str) -> bool:
        return codename in self.granted

    def may_read_actors(self, owners: Iterable[str]) -> bool:
        """Return whether the caller may read actor, reason and evidence of changes.

        Args:
            owners: the owners of the service at the time of the changes.
        """
        return self.may("view_change") or self.owns(owners)

    def claimable_groups(self) -> list[str]:
        """Return the caller's groups that can own a service.

        Roles cannot, and neither can groups that every account has.
        """
        rules = access_rules.current()
        return sorted(group for group in self.groups if not rules.is_role(group) and not is_ignored(group))


def is_ignored(group: str) -> bool:
    return any(fnmatchcase(group, pattern) for pattern in settings.REGISTRY_IGNORED_GROUPS)
