"""Group names from a token's claims, in the shapes in which providers send them.

A claim of another shape, or one that is missing or null, or moved elsewhere by `_claim_names` (OpenID Connect Core,
5.6.2), holds no groups: it never fails a request and never grants anything.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from service_registry.identity.principal import is_name

MAX_GROUPS = 1000


def groups_of(claims: Mapping[str, Any], paths: Iterable[str]) -> frozenset[str]:
    """The names at the dotted `paths` (`groups`, `realm_access.roles`) together, at most MAX_GROUPS of them."""
    names = (name for path in paths for name in names_in(value_at(claims, path.split("."))))
    return frozenset(islice(names, MAX_GROUPS))


def value_at(node: Any, parts: list[str]) -> Any:
    """What stands at the path, or None. A key may hold dots itself (`resource_access.my.client.roles`,
    `https://example.com/groups`): the longest key that leads to a value is taken."""
    if not parts:
        return node
    if not isinstance(node, dict):
        return None
    for length in range(len(parts), 0, -1):
        value = value_at(node.get(".".join(parts[:length])), parts[length:])
        if value is not None:
            return value
    return None


def names_in(value: Any) -> Iterator[str]:
    """A list holds names; a string is one name. Keycloak's paths begin with a slash, which is no part of the name."""
    for entry in [value] if isinstance(value, str) else value if isinstance(value, list) else []:
        name = entry.removeprefix("/") if isinstance(entry, str) else None
        if is_name(name):
            yield name
