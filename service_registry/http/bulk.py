"""A verb over an array: one outcome an item, in order, whichever door it came by."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel

from service_registry import manager
from service_registry.caller import Caller
from service_registry.exceptions import RegistryError
from service_registry.http import responses
from service_registry.http.validation import validate_many

Model = TypeVar("Model", bound=BaseModel)
Outcome = TypeVar("Outcome")
Verb = Callable[[Sequence[Model], Caller], list[Outcome | RegistryError]]


def outcomes(
    model: type[Model], documents: list[Any], verb: Verb[Model, Outcome], caller: Caller
) -> list[Outcome | RegistryError]:
    """What became of each item. Those that break the contract never reach the verb.

    Raises InvalidInput when the array itself is empty or too long.
    """
    verdicts = validate_many(model, documents)
    good = [verdict for verdict in verdicts if not isinstance(verdict, RegistryError)]
    done = verb(good, caller)
    if len(good) == len(verdicts):
        return done
    rest = iter(done)
    return [verdict if isinstance(verdict, RegistryError) else next(rest) for verdict in verdicts]


def document(outcomes: Iterable[Outcome | RegistryError], shown: Callable[[Outcome], dict[str, Any]]) -> dict[str, Any]:
    """The answer."""
    refused = responses.of_refused_item
    return {"results": [refused(each) if isinstance(each, RegistryError) else shown(each) for each in outcomes]}


def unchanged(outcomes: Iterable[object]) -> int:
    """How many beats changed nothing that a reader sees."""
    return sum(isinstance(each, manager.Renewed) and not each.changed for each in outcomes)


def counts(document: dict[str, Any]) -> Counter[str]:
    """`ok`, `created` or an error's code, an item each."""
    return Counter(
        "created" if item["status"] == 201 else item["error"]["code"] if "error" in item else "ok"
        for item in document["results"]
    )


def errors(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [item["error"] for item in document["results"] if "error" in item]
