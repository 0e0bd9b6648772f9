"""Reading a registry from JSON lines, through the verbs: what stands already is brought up to date, or left alone."""

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

LINES_A_BATCH = 500

KEY = ("namespace", "service_name", "instance_id")


def override_order(document: dict[str, Any]) -> InstanceOverride:
    """Its time is a text here, as on the wire."""
    key = {name: document.pop(name) for name in KEY if name in document}
    return InstanceOverride(**key, **OverrideRequest.model_validate(document).model_dump())


READERS: dict[str, Callable[[dict[str, Any]], BaseModel]] = {
    "service": ServiceOwners.model_validate,
    "instance": Registration.model_validate,
    "override": override_order,
}


@dataclass(frozen=True, slots=True)
class Refused:
    """A line that was not taken, and why."""

    line: int
    why: str


@dataclass(frozen=True, slots=True)
class Batch:
    """So many lines were read; these of them were refused."""

    lines: int
    refused: list[Refused]


def take(lines: Iterable[str], caller: Caller, dry_run: bool = False) -> Iterator[Batch]:
    """Import batch after batch, and yield each when it is committed. Whoever stops taking them stops the import.

    Args:
        lines: as `exporting.lines` gives them; services before what is theirs.
        caller: an operator, whose actor stands in the changes.
        dry_run: only see whether each line can be understood.
    """
    numbered = enumerate(lines, 1)
    while batch := list(islice(numbered, LINES_A_BATCH)):
        read = [(number, understood(text)) for number, text in batch]
        refused = [Refused(number, item) for number, item in read if isinstance(item, str)]
        items, repeated = each_once((number, item) for number, item in read if not isinstance(item, str))
        refused += repeated
        # Runs of one type, since each has its verb, in the order of the file.
        for model, run in groupby(items, lambda each: type(each[1])):
            refused += [] if dry_run else acted(model, list(run), caller)
        yield Batch(len(batch), sorted(refused, key=lambda each: each.line))


def each_once(items: Iterable[tuple[int, Any]]) -> tuple[list[tuple[int, Any]], list[Refused]]:
    """Without those that name an instance again, which a verb would refuse by a place that is no line."""
    first: dict[Any, int] = {}
    once, repeated = [], []
    for line, item in items:
        key = (type(item), line if isinstance(item, ServiceOwners) else key_of(item))
        if first.setdefault(key, line) == line:
            once.append((line, item))
        else:
            repeated.append(Refused(line, f"instance_id is not right: repeats line {first[key]}."))
    return once, repeated


def understood(text: str) -> Any:
    """The order that a line gives, or a text that says why it is none."""
    try:
        document = json.loads(text)
        reader = READERS[document.pop("type")]
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
        return "it is no JSON object of a known type."
    try:
        return reader(document)
    except ValidationError as error:
        return describe_refusal(to_invalid_input(error))


def acted(model: type[BaseModel], run: Sequence[tuple[int, Any]], caller: Caller) -> list[Refused]:
    items = [item for _number, item in run]
    verbs: dict[type[BaseModel], Callable[[], Sequence[object]]] = {
        ServiceOwners: lambda: manager.set_owners(items, caller),
        Registration: lambda: register(items, caller),
        InstanceOverride: lambda: manager.override(items, caller),
    }
    outcomes = zip(run, verbs[model](), strict=True)
    return [
        Refused(number, describe_refusal(outcome))
        for (number, _), outcome in outcomes
        if isinstance(outcome, RegistryError)
    ]


def register(items: Sequence[Registration], caller: Caller) -> list[manager.Registered | RegistryError]:
    """Register as an owner of each service would: an operator restores what others own. None is claimed for anybody."""
    names = {item.service_name for item in items}
    rows = Service.objects.filter(name__in=names).values_list("namespace", "name", "owners")
    owners = {(namespace, name): frozenset(names) for namespace, name, names in rows}
    groups = frozenset[str]().union(*owners.values())
    known = [item for item in items if (item.namespace, item.service_name) in owners]
    outcomes = iter(manager.register(known, Caller(caller.actor, groups, caller.granted | {"register_instance"})))
    return [next(outcomes) if (item.namespace, item.service_name) in owners else ServiceNotFound() for item in items]
