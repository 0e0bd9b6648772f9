"""Translate command arguments into orders, and refusals into sentences.

The sentences name the flags.
"""

import re
from collections.abc import Mapping
from typing import Any, TypeVar

from django.core.management.base import CommandError
from pydantic import BaseModel, ValidationError

from service_registry.caller import Caller
from service_registry.exceptions import RegistryError
from service_registry.schemas.errors import describe_refusal, to_invalid_input

Model = TypeVar("Model", bound=BaseModel)

# The caller of every command: a user who may run manage.py may do all of this.
OPERATOR = Caller("system:command", frozenset(), frozenset({"operate_instance", "manage_service", "deny_caller"}))

FLAGS = {
    "name": "NAME",
    "until": "--until",
    "owners": "--owner",
    "service_name": "--service",
    "silent_for_seconds": "--silent-for",
}

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
LONGEST_DAYS = 3650  # PostgreSQL's timestamps begin in 4713 BC: a longer interval may leave their range.


def build_order(model: type[Model], fields: Mapping[str, Any]) -> Model:
    """Validate `fields` with `model`. Raises CommandError with one sentence."""
    try:
        return model(**fields)
    except ValidationError as error:
        raise command_error(to_invalid_input(error)) from error


def command_error(refusal: RegistryError) -> CommandError:
    """Return the refusal of an operation as a CommandError with one sentence."""
    return CommandError(describe_refusal(refusal, flag_of))


def flag_of(field: str) -> str:
    name = field.partition(".")[0]
    return FLAGS.get(name, f"--{name}")


def parse_duration(flag: str, text: str) -> float:
    """Return the seconds of a text like 90s, 10m, 2h or 1d, at most ten years.

    Raises CommandError.
    """
    found = re.fullmatch(r"([0-9]{1,9})([smhd])", text, re.ASCII)
    if not found or not int(found[1]):
        raise CommandError(f"{flag} must be a number and a unit, as in 90s, 10m, 2h or 1d.")
    duration = int(found[1]) * SECONDS[found[2]]
    if duration > LONGEST_DAYS * SECONDS["d"]:
        raise CommandError(f"{flag} must be at most {LONGEST_DAYS}d.")
    return float(duration)


def first_line(error: Exception) -> str:
    """Return the reason of an error of the database or of a file in one line."""
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8"
    return str(getattr(error, "strerror", None) or error).splitlines()[0]
