"""The result of a check, and what to do about it."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """A fact that a check found; `advice` is empty when there is nothing to do."""

    level: Literal["ok", "warn", "fail"]
    message: str
    advice: str = ""


def ok(message: str) -> Finding:
    return Finding("ok", message)


def warn(message: str, advice: str = "") -> Finding:
    return Finding("warn", message, advice)


def fail(message: str, advice: str) -> Finding:
    return Finding("fail", message, advice)
