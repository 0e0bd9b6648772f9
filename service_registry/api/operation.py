"""What only those who answer a request know about it, left on the request for the one who reports it."""

from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class Operation:
    """`items` is an array's length, `unchanged` how many of them changed nothing that a reader sees, `error` what the
    request failed with although it should not have."""

    namespace: str | None = None
    service_name: str | None = None
    instance_id: str | None = None
    items: int | None = None
    unchanged: int = 0
    error: BaseException | None = None


def of(request: Any) -> Operation:
    """The operation of a Django or DRF request."""
    request = getattr(request, "_request", request)
    kept: Operation | None = getattr(request, "operation", None)
    if kept is None:
        kept = request.operation = Operation()
    return kept


def note_body(request: Any, document: Any) -> None:
    """Keep whom the body is about, before anybody has judged it."""
    operation = of(request)
    if isinstance(document, list):
        operation.items = len(document)
    elif isinstance(document, dict):
        for name in ("namespace", "service_name", "instance_id"):
            if isinstance(value := document.get(name), str):
                setattr(operation, name, value)
