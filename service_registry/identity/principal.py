"""Who a verified token speaks for."""

import re
from dataclasses import dataclass
from typing import TypeGuard

# Names go into logs, the change log and the database: no control characters, and no surrogates, which cannot be stored.
NAME = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,255}")


def is_name(value: object) -> TypeGuard[str]:
    """Whether `value` may name somebody: a string of 1 to 255 characters, all of which can be stored and printed."""
    return isinstance(value, str) and NAME.fullmatch(value) is not None


@dataclass(frozen=True, slots=True)
class Principal:
    """Made from the token alone. `expires_at` is its `exp`, in seconds since the epoch."""

    issuer: str
    subject: str
    client: str | None
    groups: frozenset[str]
    expires_at: float

    @property
    def actor(self) -> str:
        """How logs, changes and `registered_by` name it."""
        return f"{self.subject}@{self.issuer}"
