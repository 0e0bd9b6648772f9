"""The result of one health check."""

import re
from dataclasses import dataclass

from django.db.models import TextChoices

from service_registry.choices import Health

OUTPUT_BYTES = 4 * 1024
# Output is shown in terminals and pages.
CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class Cause(TextChoices):
    """The cause of the level of a result."""

    OK = "ok"
    TOO_MANY_REQUESTS = "too_many_requests"
    UNEXPECTED_STATUS = "unexpected_status"
    NOT_SERVING = "not_serving"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    TLS = "tls"
    PROTOCOL = "protocol"
    NAME = "name"
    FORBIDDEN_ADDRESS = "forbidden_address"

    @property
    def level(self) -> Health:
        """The level that a check with this cause has."""
        return {Cause.OK: Health.PASSING, Cause.TOO_MANY_REQUESTS: Health.WARNING}.get(self, Health.CRITICAL)


@dataclass(frozen=True, slots=True)
class Result:
    """The cause of a result, which gives its level, and what the target said, or what happened instead."""

    cause: Cause
    output: str = ""

    @property
    def level(self) -> Health:
        return self.cause.level


class CheckFailed(Exception):
    """A check that failed before the target answered. The message is its output."""

    def __init__(self, cause: Cause, message: str) -> None:
        super().__init__(message)
        self.cause = cause


def printable(output: bytes) -> str:
    """Return at most OUTPUT_BYTES of an output as text without control characters."""
    return CONTROL_CHARACTERS.sub("\ufffd", output[:OUTPUT_BYTES].decode("utf-8", "replace"))
