"""What a check found, and what to do about it."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """`said` is what is so, `advice` what to do; nothing where it is well."""

    level: Literal["ok", "warn", "fail"]
    said: str
    advice: str = ""


def ok(said: str) -> Finding:
    return Finding("ok", said)


def warn(said: str, advice: str = "") -> Finding:
    return Finding("warn", said, advice)


def fail(said: str, advice: str) -> Finding:
    return Finding("fail", said, advice)
