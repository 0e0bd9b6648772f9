"""Durations of the command line: a number and a unit."""

import re

from django.core.management.base import CommandError

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
LONGEST_DAYS = 3650  # PostgreSQL's times do not go back without end


def seconds(flag: str, text: str) -> float:
    """The seconds of a text like 90s, 10m, 2h or 1d, at most ten years. Raises CommandError, which names the flag."""
    found = re.fullmatch(r"([0-9]{1,9})([smhd])", text, re.ASCII)
    if not found or not int(found[1]):
        raise CommandError(f"{flag} must be a number and a unit, as in 90s, 10m, 2h or 1d.")
    duration = int(found[1]) * SECONDS[found[2]]
    if duration > LONGEST_DAYS * SECONDS["d"]:
        raise CommandError(f"{flag} must be at most {LONGEST_DAYS}d.")
    return float(duration)
