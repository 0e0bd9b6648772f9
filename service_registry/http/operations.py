"""register, heartbeat and deregister on the wire: one table for every front end.

Each accepts a single object or an array. A single object is answered with its own status, an array with 200 and a
result for each item.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from service_registry import manager, permissions
from service_registry.caller import Caller
from service_registry.exceptions import RegistryError
from service_registry.http.problems import STATUS_BY_ERROR, item_error
from service_registry.http.request_log import RequestLogEntry, refusal_counts
from service_registry.http.validation import validate_many
from service_registry.permissions import Action
from service_registry.schemas import Deregistration, Heartbeat, Registration

Item = TypeVar("Item", bound=BaseModel)
Done = TypeVar("Done")
Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class WriteOperation(Generic[Item, Done]):
    """An operation that callers invoke with an object or an array.

    Attributes:
        action: the permission that it needs.
        model: what each object has to be.
        run: the operation of `manager`, over a batch of one caller.
        response: status and body for a single object; the body is None for 204.
        item: the result of an item in an array.
    """

    action: Action
    model: type[Item]
    run: Callable[[Sequence[Item], Caller], list[Done | RegistryError]]
    response: Callable[[Item, Done], tuple[int, Document | None]]
    item: Callable[[Done], Document]


def registration_response(_item: Registration, done: manager.Registered) -> tuple[int, Document]:
    return (201 if done.created else 200), done.document


def registration_item(done: manager.Registered) -> Document:
    return {"status": 201 if done.created else 200, "instance": done.document}


def heartbeat_response(item: Heartbeat, done: manager.Renewed) -> tuple[int, Document]:
    document = {
        "namespace": item.namespace,
        "service_name": item.service_name,
        "instance_id": item.instance_id,
        "status": done.status,
        "lease": done.lease,
    }
    return 200, document | ({"recovered": True} if done.recovered else {})


def heartbeat_item(done: manager.Renewed) -> Document:
    return {"status": 200, "lease": done.lease}


def deregistration_response(_item: Deregistration, _done: manager.Deregistered) -> tuple[int, None]:
    return 204, None


def deregistration_item(_done: manager.Deregistered) -> Document:
    return {"status": 204}


REGISTER = WriteOperation(
    permissions.REGISTER, Registration, manager.register, registration_response, registration_item
)
HEARTBEAT = WriteOperation(permissions.HEARTBEAT, Heartbeat, manager.heartbeat, heartbeat_response, heartbeat_item)
DEREGISTER = WriteOperation(
    permissions.DEREGISTER, Deregistration, manager.deregister, deregistration_response, deregistration_item
)


def one_response(
    operation: WriteOperation[Item, Done], item: Item, outcome: Done | RegistryError, entry: RequestLogEntry
) -> tuple[int, Document | None]:
    """Return status and body for a single object. Raises its RegistryError."""
    done = result(outcome)
    entry.unchanged = count_unchanged([done])
    return operation.response(item, done)


def result(outcome: Done | RegistryError) -> Done:
    """Return the result of an operation. Raises its RegistryError."""
    if isinstance(outcome, RegistryError):
        raise outcome
    return outcome


def run_array(
    operation: WriteOperation[Item, Done], documents: list[Any], caller: Caller, entry: RequestLogEntry
) -> Document:
    """Run an operation over the items of an array, and return the response's body.

    The body has a result for each item, in order. Items that are not valid never reach the operation. Raises
    InvalidInput when the array is empty or too long.
    """
    items = validate_many(operation.model, documents)
    done = iter(operation.run([item for item in items if not isinstance(item, RegistryError)], caller))
    outcomes = [item if isinstance(item, RegistryError) else next(done) for item in items]
    results = [refusal(each) if isinstance(each, RegistryError) else operation.item(each) for each in outcomes]
    errors = [each["error"] for each in results if "error" in each]
    entry.item_outcomes = Counter(map(outcome_of_item, results))
    entry.unchanged = count_unchanged(outcomes)
    entry.refusals = refusal_counts(errors) if operation.action is permissions.HEARTBEAT else None
    return {"results": results}


def refusal(error: RegistryError) -> Document:
    return {"status": STATUS_BY_ERROR[type(error)], "error": item_error(error)}


def outcome_of_item(result: Document) -> str:
    """Return `ok`, `created` or the code of an item's error."""
    if "error" in result:
        return str(result["error"]["code"])
    return "created" if result["status"] == 201 else "ok"


def count_unchanged(outcomes: Iterable[object]) -> int:
    """Count the heartbeats that changed nothing for readers."""
    return sum(isinstance(each, manager.Renewed) and not each.changed for each in outcomes)
