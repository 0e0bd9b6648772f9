"""Request ids, and the log line and the counters of each request.

They are the same whichever front end answered it.
"""

import logging
import re
import secrets
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings

from service_registry import logs, metrics

logger = logging.getLogger(__name__)

REQUEST_ID_HEADER = "X-Request-Id"
# Request ids of callers that are safe to print.
SAFE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
# The outcome of a response whose client was disconnected because it read too slowly.
SLOW_CLIENT = "too_slow"
# Probes, scrapes and static files are requested all the time.
UNLOGGED = {"livez", "readyz", "metrics", "unknown"}


@dataclass(slots=True, kw_only=True)
class RequestLogEntry:
    """Facts about a request, filled in while it is handled.

    Attributes:
        operation: one of a few names, whatever the client sent.
        route: the path with its parameters in braces.
        outcomes: how many items ended in which way: `ok`, `created` or the code of an error.
        items: the length of an array; None for a single object.
        unchanged: how many items changed nothing that a reader sees.
        refusals: heartbeats that renewed no lease, by reason.
        error: the exception of a request that failed unexpectedly.
    """

    operation: str
    route: str | None
    method: str | None
    request_id: str
    status: int = 500
    outcomes: Counter[str] = field(default_factory=Counter)
    actor: str | None = None
    namespace: str | None = None
    service_name: str | None = None
    instance_id: str | None = None
    items: int | None = None
    unchanged: int = 0
    refusals: Mapping[str, int] = field(default_factory=dict)
    error: BaseException | None = None

    def note_body(self, document: Any) -> None:
        """Note the size of an array, or the names in a single object, before validation."""
        if isinstance(document, list):
            self.items = len(document)
        elif isinstance(document, dict):
            for name in ("namespace", "service_name", "instance_id"):
                if isinstance(value := document.get(name), str):
                    setattr(self, name, value)

    def note_response(self, status: int, code: str) -> None:
        """Note the status, and one outcome for the request.

        Where the items have outcomes already, the request gets none.
        """
        self.status = status
        if not self.outcomes:
            self.outcomes = Counter({code: 1})

    def note_slow_client(self) -> None:
        """Note that the response was not delivered."""
        self.outcomes = Counter({SLOW_CLIENT: 1})

    def note_problem(self, status: int, problem: Mapping[str, Any]) -> None:
        """Note a problem as the outcome of every item: the whole request was refused."""
        items = self.items or 1
        self.status = status
        self.outcomes = Counter({str(problem["code"]): items})
        if self.operation == "heartbeat":
            self.refusals = refusal_counts([problem] * items)


def choose_request_id(sent: str) -> str:
    """Return the id that the caller sent, if it is safe to print, or a random one.

    A random id has 32 hexadecimal digits.
    """
    return sent if SAFE_ID.fullmatch(sent) else secrets.token_hex(16)


def record(entry: RequestLogEntry, seconds: float) -> None:
    """Count a request, and log it when it is worth a line.

    `seconds` is how long it took.
    """
    metrics.count_request(entry.method, entry.operation, entry.status, entry.outcomes, seconds)
    metrics.count_refused_heartbeats(entry.refusals)
    if is_logged(entry):
        write_line(entry, seconds)


def refusal_counts(errors: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """Count errors of heartbeats by their reason, or else by their code."""
    return Counter(str(error.get("reason") or error["code"]) for error in errors)


def is_logged(entry: RequestLogEntry) -> bool:
    if entry.status >= 500 or entry.operation != "heartbeat":
        return entry.status >= 400 or entry.operation not in UNLOGGED
    changed = entry.outcomes.total() > entry.unchanged
    return {"all": True, "none": False}.get(settings.REGISTRY_LOG_HEARTBEATS, changed)


def write_line(entry: RequestLogEntry, seconds: float) -> None:
    fields = {
        "request_id": entry.request_id,
        "method": entry.method,
        "route": entry.route,
        "status": entry.status,
        "code": next(iter(entry.outcomes)) if entry.status >= 400 else None,
        "actor": entry.actor,
        "namespace": entry.namespace,
        "service_name": entry.service_name and entry.service_name.lower(),  # as stored, also where it was refused
        "instance_id": entry.instance_id,
        "items": entry.items,
        "outcomes": entry.outcomes,
        "duration_ms": round(seconds * 1000, 3),
        "error": entry.error,
    }
    logs.log_event(logger, log_level(entry.status), entry.operation, fields)


def log_level(status: int) -> int:
    """Return the level of a line. A refused caller is no fault of the registry's."""
    if status < 500:
        return logging.INFO
    return logging.WARNING if status == 503 else logging.ERROR
