"""The verified identity of a caller."""

import re
from dataclasses import dataclass, field
from typing import TypeGuard

from service_registry.identity.key_set import KeySet

# Names go into logs, the change log and the database: no control characters, and no surrogates, which cannot be stored.
NAME = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,255}")


def is_name(value: object) -> TypeGuard[str]:
    """Return whether `value` is a string of 1 to 255 printable characters."""
    return isinstance(value, str) and NAME.fullmatch(value) is not None


@dataclass(frozen=True, slots=True)
class Principal:
    """The identity that a verified access token proves.

    Attributes:
        client: the OAuth client that got the token, where the token names it.
        expires_at: `exp` of the token, in seconds since the epoch.
        key_set: the keys that the token was verified with.
    """

    issuer: str
    subject: str
    client: str | None
    groups: frozenset[str]
    expires_at: float
    key_set: KeySet = field(repr=False)

    @property
    def actor(self) -> str:
        """The name of the principal in logs, changes and `registered_by`."""
        return f"{self.subject}@{self.issuer}"
