"""Request ids, and the log line and the counters of each request.

They are the same whichever front end answered it.
"""

import logging
import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django.conf import settings

from service_registry import logs, metrics
from service_registry.request_metrics import request_counts

logger = logging.getLogger(__name__)

REQUEST_ID_HEADER = "X-Request-Id"
# Request ids of callers that are safe to print.
SAFE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
# The outcome of a response whose client was disconnected because it read too slowly.
SLOW_CLIENT = "too_slow"
# The outcome of a read of health that is answered with 503 because the caller requires more healthy instances.
NOT_HEALTHY = "not_healthy"
# Probes, scrapes and static files are requested all the time.
UNLOGGED = {"livez", "readyz", "metrics", "unknown"}
# Reads are counted, and logged one by one only by the setting.
READS = {"list", "discover", "instance", "service_health", "instance_health", "watch", "changes"}
DONE = {"ok", "created", NOT_HEALTHY}


@dataclass(slots=True, kw_only=True)
class RequestLogEntry:
    """Facts about a request, filled in while it is handled.

    Attributes:
        operation: one of a few names, whatever the client sent.
        route: the path with its parameters in braces.
        outcome: `ok`, `created` or the code of an error; None where each item has one.
        item_outcomes: number of items of an array by outcome.
        items: the length of an array; None for a single object.
        unchanged: number of items that changed nothing that a reader sees.
        refusals: heartbeats that renewed no lease, by reason; None without any.
        error: the exception of a request that failed unexpectedly.
    """

    operation: str
    route: str | None
    method: str | None
    request_id: str
    status: int = 500
    outcome: str | None = None
    item_outcomes: Mapping[str, int] | None = None
    actor: str | None = None
    namespace: str | None = None
    service_name: str | None = None
    instance_id: str | None = None
    items: int | None = None
    unchanged: int = 0
    refusals: Mapping[str, int] | None = None
    error: BaseException | None = None

    @property
    def outcomes(self) -> Mapping[str, int]:
        """The number of items by outcome."""
        return self.item_outcomes or {str(self.outcome): 1}

    @property
    def is_done(self) -> bool:
        """True where nothing failed, neither the request nor one of its items."""
        if self.error is not None or (self.status >= 400 and self.outcome != NOT_HEALTHY):
            return False
        return self.outcome in DONE or (self.item_outcomes is not None and DONE.issuperset(self.item_outcomes))

    def note_body(self, document: Any) -> None:
        """Note the size of an array, or the names in a single object, before validation."""
        if isinstance(document, list):
            self.items = len(document)
        elif isinstance(document, dict):
            for name in ("namespace", "service_name", "instance_id"):
                if isinstance(value := document.get(name), str):
                    setattr(self, name, value)

    def note_response(self, status: int, code: str) -> None:
        """Note the status, and the outcome unless there is one already: of a problem, or of each item."""
        self.status = status
        if self.outcome is None and not self.item_outcomes:
            self.outcome = code

    def note_slow_client(self) -> None:
        """Note that the response was not delivered."""
        self.outcome, self.item_outcomes = SLOW_CLIENT, None

    def note_problem(self, status: int, problem: Mapping[str, Any]) -> None:
        """Note a problem as the outcome of every item: the whole request was refused."""
        items, code = self.items or 1, str(problem["code"])
        self.status = status
        self.outcome, self.item_outcomes = (code, None) if items == 1 else (None, {code: items})
        if self.operation == "heartbeat":
            self.refusals = refusal_counts([problem] * items)


def choose_request_id(sent: str) -> str:
    """Return the id that the caller sent, if it is safe to print, or a random one.

    A random id has 32 hexadecimal digits.
    """
    # The operating system's random numbers cost more than all else that is noted of a request; an id is no secret.
    return sent if SAFE_ID.fullmatch(sent) else f"{random.getrandbits(128):032x}"


def record(entry: RequestLogEntry, seconds: float) -> None:
    """Count a request that took this number of seconds, and log it when it is worth a line."""
    request_counts.count(entry.method, entry.operation, entry.status, entry.outcome, seconds)
    if entry.item_outcomes:
        metrics.count_items(entry.operation, entry.item_outcomes)
    if entry.refusals:
        metrics.count_refused_heartbeats(entry.refusals)
    if is_logged(entry):
        write_line(entry, seconds)


def refusal_counts(errors: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """Count errors of heartbeats by their reason, or else by their code."""
    return Counter(str(error.get("reason") or error["code"]) for error in errors)


def is_logged(entry: RequestLogEntry) -> bool:
    """Return whether a request is worth a line: a failed one always is."""
    if not entry.is_done:
        return True
    if entry.operation == "heartbeat":
        log = settings.REGISTRY_LOG_HEARTBEATS
        return log == "all" or (log == "changes" and entry.unchanged < (entry.items or 1))
    if entry.operation in READS:
        return settings.REGISTRY_LOG_READS == "all"
    return entry.operation not in UNLOGGED


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
