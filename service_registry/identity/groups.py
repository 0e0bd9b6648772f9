"""Read group names from the claims of a token, in the formats that providers use.

A claim of another format, a missing or null one, and one that `_claim_names` moves elsewhere (OpenID Connect Core,
5.6.2) contain no groups: they never fail a request and never grant anything.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from service_registry.identity.principal import is_name

MAX_GROUPS = 1000


def read_groups(claims: Mapping[str, Any], paths: Iterable[str]) -> frozenset[str]:
    """Return the names at all `paths` together, at most MAX_GROUPS.

    Paths are dotted, such as `groups` and `realm_access.roles`.
    """
    names = (name for path in paths for name in read_names(find_claim(claims, path.split("."))))
    return frozenset(islice(names, MAX_GROUPS))


def find_claim(node: Any, parts: list[str]) -> Any:
    """Return the value at the path, or None.

    Keys may contain dots themselves (`resource_access.my.client.roles`, `https://example.com/groups`): the longest key
    that leads to a value is used.
    """
    if not parts:
        return node
    if not isinstance(node, dict):
        return None
    for length in range(len(parts), 0, -1):
        value = find_claim(node.get(".".join(parts[:length])), parts[length:])
        if value is not None:
            return value
    return None


def read_names(value: Any) -> Iterator[str]:
    """Yield the names in a list, or the one name that a string is.

    The leading slash of Keycloak's group paths is removed.
    """
    for entry in [value] if isinstance(value, str) else value if isinstance(value, list) else []:
        name = entry.removeprefix("/") if isinstance(entry, str) else None
        if is_name(name):
            yield name
