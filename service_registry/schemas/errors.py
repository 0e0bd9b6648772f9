"""What breaks the contract, field by field, and as a sentence for people at a terminal."""

import re
from collections.abc import Callable, Iterable

from pydantic import ValidationError

from service_registry.exceptions import InvalidInput, RegistryError

# A name that a caller made up comes back only when it cannot hurt whoever prints it.
ERRORS_SHOWN = 20
PRINTABLE = re.compile(r"[A-Za-z0-9._:/@-]{1,64}")


def to_invalid_input(error: ValidationError) -> InvalidInput:
    found: dict[str, list[dict[str, str]]] = {}
    for entry in error.errors(include_input=False, include_url=False, include_context=False)[:ERRORS_SHOWN]:
        found.setdefault(field_path(entry["loc"]), []).append({"code": entry["type"], "message": entry["msg"]})
    return InvalidInput(found)


def field_path(location: Iterable[int | str]) -> str:
    parts = [str(part) for part in location if part != "[key]"]
    return ".".join(part if PRINTABLE.fullmatch(part) else "?" for part in parts) or "body"


def describe_refusal(refusal: RegistryError, name_of: Callable[[str], str] = str) -> str:
    """Each field with what is wrong with it, or the refusal's own text where it is not about fields.

    Args:
        refusal: what a verb or `invalid` gave.
        name_of: what a field is called where the sentence is read; else its path.
    """
    if not isinstance(refusal, InvalidInput):
        return str(refusal)
    said = [
        f"{name_of(field)} is not right: {error['message']}"
        for field, errors in refusal.errors.items()
        for error in errors
    ]
    return f"{'; '.join(said)}."
