"""Keep this process's copy of what the database says about callers: permissions of groups, and denials.

The event loop of a web process reads the copy, which `asgi.process` refreshes every second. Other processes refresh it
when they use it and it is older than MAX_AGE_SECONDS.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from django.contrib.auth.models import Group
from django.db import Error

from service_registry.access_models import Denial
from service_registry.database.outages import is_outage
from service_registry.database.transactions import with_retries
from service_registry.exceptions import NotMigrated

MAX_AGE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class AccessRules:
    """The permissions of each Django group, and the denials in force.

    Attributes:
        by_group: codenames of permissions by the group's name.
        denied: denied callers, each as kind (`subject` or `client`), issuer and name.
    """

    by_group: Mapping[str, frozenset[str]]
    denied: frozenset[tuple[str, str, str]] = frozenset()

    def granted_to(self, groups: Iterable[str]) -> frozenset[str]:
        """Return the codenames that `groups`, names from a token, have together."""
        return frozenset().union(*(self.by_group[name] for name in groups if name in self.by_group))

    def is_role(self, group: str) -> bool:
        """Return whether `group` is a Django group with permissions: a role, not a team."""
        return group in self.by_group

    def is_denied(self, issuer: str, subject: str, client: str | None = None) -> bool:
        """Return whether an operator has denied this subject or client of the issuer."""
        return not self.denied.isdisjoint({("subject", issuer, subject), ("client", issuer, client or "")})


class AccessRulesCache:
    """A cache of the access rules.

    Reads take no lock. Two threads that find the rules too old both read them; should the older result stay, the next
    refresh replaces it.

    Attributes:
        latest: the rules as last read; None before. The object stays while the rules are the same.
    """

    def __init__(self) -> None:
        self.latest: AccessRules | None = None
        self._read_at = float("-inf")

    def current(self) -> AccessRules:
        """Return rules that are at most MAX_AGE_SECONDS old. Raises as `refresh`."""
        latest = self.latest
        if latest is None or time.monotonic() - self._read_at > MAX_AGE_SECONDS:
            return self.refresh()
        return latest

    def invalidate(self) -> None:
        """Read the rules at the next use."""
        self._read_at = float("-inf")

    def refresh(self) -> AccessRules:
        """Read the rules, and return them.

        During an outage the last known rules stay valid: the database cannot change either.

        Raises NotMigrated where no group has permissions, because the last step of a migration creates the roles.
        """
        try:
            rules = with_retries(read_rules)
        except Error as error:
            if self.latest is None or not is_outage(error):
                raise
            rules = self.latest
        except NotMigrated:
            self.latest = None
            raise
        if rules != self.latest:
            self.latest = rules
        self._read_at = time.monotonic()
        return self.latest or rules


access_rules = AccessRulesCache()


def read_rules() -> AccessRules:
    """Return the rules in the database. Raises NotMigrated where no group has permissions."""
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
    denied = frozenset(Denial.objects.in_force().values_list("kind", "issuer", "name"))
    return AccessRules({name: frozenset(codenames) for name, codenames in by_group.items()}, denied)
