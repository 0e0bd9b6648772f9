"""Invalid input as errors by field, and as a sentence for people."""

import re
from collections.abc import Callable, Iterable

from pydantic import ValidationError

from service_registry.exceptions import InvalidInput, RegistryError

ERRORS_SHOWN = 20
# The name of an unknown field is returned only when it can be printed safely, as every legal key of metadata can.
PRINTABLE = re.compile(r"[A-Za-z0-9._:/@-]{1,128}")


def to_invalid_input(error: ValidationError) -> InvalidInput:
    """Return the first errors of a validation, without the values that were sent."""
    found: dict[str, list[dict[str, str]]] = {}
    for entry in error.errors(include_input=False, include_url=False, include_context=False)[:ERRORS_SHOWN]:
        found.setdefault(field_path(entry["loc"]), []).append({"code": entry["type"], "message": entry["msg"]})
    return InvalidInput(found)


def field_path(location: Iterable[int | str]) -> str:
    """Return the path of a field, with ? for a part that cannot be printed safely."""
    parts = [str(part) for part in location if part != "[key]"]
    return ".".join(part if PRINTABLE.fullmatch(part) else "?" for part in parts) or "body"


def describe_refusal(refusal: RegistryError, name_of: Callable[[str], str] = str) -> str:
    """Return a sentence with each field's error, or the text of another error.

    Args:
        refusal: from an operation or `to_invalid_input`.
        name_of: returns the name of a field for the reader of the sentence; by default its path.
    """
    if not isinstance(refusal, InvalidInput):
        return str(refusal)
    errors_by_field = [
        f"{name_of(field)} is not right: {error['message']}"
        for field, errors in refusal.errors.items()
        for error in errors
    ]
    return f"{'; '.join(errors_by_field)}."
