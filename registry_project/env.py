"""Typed reads of the environment. A wrong value stops the start with one sentence that says what would be right."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from django.core.exceptions import ImproperlyConfigured

TRUE = {"1", "true", "yes", "on"}
FALSE = {"0", "false", "no", "off", ""}


def text(name: str, default: str = "", choices: Sequence[str] = ()) -> str:
    value = os.environ.get(name, default).strip()
    if choices and value not in choices:
        raise ImproperlyConfigured(f"{name} must be one of {', '.join(choices)}, not {value!r}.")
    return value


def flag(name: str, default: bool = False) -> bool:
    value = os.environ.get(name, str(default)).strip().lower()
    if value not in TRUE | FALSE:
        raise ImproperlyConfigured(f"{name} must be true or false, not {value!r}.")
    return value in TRUE


def integer(name: str, default: int, low: int, high: int) -> int:
    value = os.environ.get(name, str(default)).strip()
    if not (value.isascii() and value.isdigit() and len(value) < 20 and low <= int(value) <= high):
        raise ImproperlyConfigured(f"{name} must be a whole number from {low} to {high}, not {value!r}.")
    return int(value)


def fraction(name: str, default: float) -> float:
    """A share of a whole: a decimal number from 0 to 1."""
    value = os.environ.get(name, str(default)).strip()
    if not (re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,9})?", value, re.ASCII) and 0 <= float(value) <= 1):
        raise ImproperlyConfigured(f"{name} must be a number from 0 to 1, not {value!r}.")
    return float(value)


def listed(name: str, default: str = "") -> list[str]:
    return [part.strip() for part in os.environ.get(name, default).split(",") if part.strip()]


def path(name: str, default: Path) -> Path:
    return Path(os.environ.get(name, "").strip() or default).resolve()


def parts(name: str, url: str) -> SplitResult:
    """The parts of an address that setting `name` holds; its host and port can be asked for."""
    try:
        split = urlsplit(url)
        split.port  # noqa: B018 - raises for one that is no port
    except ValueError as error:
        raise ImproperlyConfigured(f"{name} is no address that can be read.") from error
    return split
