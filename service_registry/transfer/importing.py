"""Import a registry from JSON lines through the manager's operations.

Rows that are equal are left unchanged.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any

from pydantic import BaseModel, ValidationError

from service_registry import manager
from service_registry.caller import Caller
from service_registry.exceptions import RegistryError, ServiceNotFound
from service_registry.manager.batch import key_of
from service_registry.models import Service
from service_registry.schemas import InstanceOverride, OverrideRequest, Registration, ServiceOwners
from service_registry.schemas.errors import describe_refusal, to_invalid_input

LINES_PER_BATCH = 500

KEY = ("namespace", "service_name", "instance_id")


def read_override(document: dict[str, Any]) -> InstanceOverride:
    """Validate an override; `until` is RFC 3339 text, as in a request."""
    key = {name: document.pop(name) for name in KEY if name in document}
    return InstanceOverride(**key, **OverrideRequest.model_validate(document).model_dump())


READERS: dict[str, Callable[[dict[str, Any]], BaseModel]] = {
    "service": ServiceOwners.model_validate,
    "instance": Registration.model_validate,
    "override": read_override,
}


@dataclass(frozen=True, slots=True)
class RefusedLine:
    """A line that was not imported, by its number in the file."""

    number: int
    reason: str


@dataclass(frozen=True, slots=True)
class ImportedBatch:
    """Number of lines that were read, and the refused lines among them."""

    lines: int
    refused: list[RefusedLine]


def import_lines(lines: Iterable[str], caller: Caller, dry_run: bool = False) -> Iterator[ImportedBatch]:
    """Import batch by batch, and yield each batch when it is committed.

    To stop iterating stops the import.

    Args:
        lines: as `exporting.export_lines` yields them: a service comes before its instances and overrides.
        caller: an operator, the actor of the changes.
        dry_run: only validate each line.
    """
    numbered = enumerate(lines, 1)
    while batch := list(islice(numbered, LINES_PER_BATCH)):
        read = [(number, read_line(text)) for number, text in batch]
        refused = [RefusedLine(number, item) for number, item in read if isinstance(item, str)]
        items, repeated = split_repeated((number, item) for number, item in read if not isinstance(item, str))
        refused += repeated
        # An operation takes one type of item: consecutive lines of a type are one call, in the order of the file.
        for model, run in groupby(items, lambda each: type(each[1])):
            refused += [] if dry_run else apply_items(model, list(run), caller)
        yield ImportedBatch(len(batch), sorted(refused, key=lambda each: each.number))


def split_repeated(items: Iterable[tuple[int, Any]]) -> tuple[list[tuple[int, Any]], list[RefusedLine]]:
    """Separate items whose key occurred before.

    An operation would refuse them by an index that is no line number.
    """
    first: dict[Any, int] = {}
    once, repeated = [], []
    for line, item in items:
        key = (type(item), line if isinstance(item, ServiceOwners) else key_of(item))
        if first.setdefault(key, line) == line:
            once.append((line, item))
        else:
            repeated.append(RefusedLine(line, f"instance_id is not right: repeats line {first[key]}."))
    return once, repeated


def read_line(text: str) -> Any:
    """Return the order of a line, or the reason as text when the line is not valid."""
    try:
        document = json.loads(text)
        reader = READERS[document.pop("type")]
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
        return "it is not a JSON object of a known type."
    try:
        return reader(document)
    except ValidationError as error:
        return describe_refusal(to_invalid_input(error))


def apply_items(model: type[BaseModel], run: Sequence[tuple[int, Any]], caller: Caller) -> list[RefusedLine]:
    """Run the operation of `model` on the items, and return the lines that it refused."""
    items = [item for _number, item in run]
    operations: dict[type[BaseModel], Callable[[], Sequence[object]]] = {
        ServiceOwners: lambda: manager.set_owners(items, caller),
        Registration: lambda: register(items, caller),
        InstanceOverride: lambda: manager.override(items, caller),
    }
    outcomes = zip(run, operations[model](), strict=True)
    return [
        RefusedLine(number, describe_refusal(outcome))
        for (number, _), outcome in outcomes
        if isinstance(outcome, RegistryError)
    ]


def register(items: Sequence[Registration], caller: Caller) -> list[manager.Registered | RegistryError]:
    """Register with the groups of each service's owners.

    An operator restores instances that others own. An instance of a service that does not exist is refused, because
    a registration would claim the service.
    """
    names = {item.service_name for item in items}
    rows = Service.objects.filter(name__in=names).values_list("namespace", "name", "owners")
    owners = {(namespace, name): frozenset(names) for namespace, name, names in rows}
    groups = frozenset[str]().union(*owners.values())
    known = [item for item in items if (item.namespace, item.service_name) in owners]
    outcomes = iter(manager.register(known, Caller(caller.actor, groups, caller.granted | {"register_instance"})))
    return [next(outcomes) if (item.namespace, item.service_name) in owners else ServiceNotFound() for item in items]
