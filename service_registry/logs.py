"""Format log records: one line per event, as JSON or as a short sentence.

JSON is for machines, the sentence for a terminal. Text that clients or libraries chose passes `sanitize`. Callers never
log metadata or tokens; what looks like a token is redacted here all the same.
"""

import functools
import json
import logging
import re
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from service_registry.rate_limit import RateLimit

Refusal: TypeAlias = tuple[str, str, str | None, str | None]

TEXT_CHARACTERS = 256
TRACEBACK_CHARACTERS = 8_000
# A JSON Web Token or its beginning: the first part is the base64 of a JSON object, the header.
TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]{5,}[A-Za-z0-9_.-]*")

# The fields of an event, in the order in which they are printed.
FIELDS = (
    *("request_id", "method", "route", "status", "code", "actor", "namespace", "service_name", "instance_id"),
    *("denied", "reason", "until", "items", "outcomes", "duration_ms", "cause"),
)


def sanitize(text: str) -> str:
    """Return text that is safe to print: one line, no tokens, at most 256 characters."""
    if "eyJ" in text:
        text = TOKEN.sub("[token]", text)
    if len(text) > TEXT_CHARACTERS:
        text = text[: TEXT_CHARACTERS - 1] + "…"
    if not text.isprintable():
        text = "".join(part if part.isprintable() else ascii(part)[1:-1] for part in text)
    return text


def log_event(logger: logging.Logger, level: int, name: str, fields: Mapping[str, Any]) -> None:
    """Log an event.

    Args:
        logger: the logger of the caller's module.
        level: an expected error is logged below ERROR, as its `cause`; from ERROR on with its traceback.
        name: the operation, e.g. "register".
        fields: values for FIELDS, None for a field that does not apply; an exception as `error`.
    """
    error = fields.get("error")
    if error is not None and level < logging.ERROR:
        fields, error = {**fields, "cause": describe_error(error)}, None
    logger.log(level, name, extra={"fields": fields}, exc_info=error)


def build_members(record: logging.LogRecord) -> dict[str, Any]:
    """Return the members of the record's line, in the order in which they are printed."""
    members: dict[str, Any] = {
        "time": f"{format_second(int(record.created))}.{int(record.msecs):03d}Z",
        "level": record.levelname.lower(),
        "logger": record.name,
        "event": sanitize(record.getMessage()),
    }
    fields = getattr(record, "fields", None) or request_fields(record)
    for name in FIELDS:
        if (value := fields.get(name)) is not None:
            members[name] = sanitize(value) if isinstance(value, str) else value
    members["process"] = record.process
    if record.exc_info and record.exc_info[1]:
        members["exception"] = format_traceback(record.exc_info[1])
    return members


@functools.lru_cache(maxsize=2)
def format_second(seconds: int) -> str:
    """Return a Unix time as RFC 3339 without the zone.

    All lines of a second share the result.
    """
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def request_fields(record: logging.LogRecord) -> Mapping[str, Any]:
    """Return the fields of a record that Django logged for a request."""
    return {"request_id": request_id_of(getattr(record, "request", None))}


def request_id_of(request: Any) -> str | None:
    """Return the id that the middleware has given to a Django request."""
    return getattr(getattr(request, "log_entry", None), "request_id", None)


def format_traceback(error: BaseException) -> str:
    """Format an error and its causes, the last 8,000 characters.

    Of each message only the first line is kept: the following lines of PostgreSQL's errors repeat the refused row.
    """
    texts = [
        f"Traceback (most recent call last):\n{''.join(traceback.format_tb(each.__traceback__))}{describe_error(each)}"
        for each in causes_of(error)
    ]
    return "\n".join(reversed(texts))[-TRACEBACK_CHARACTERS:]


def describe_error(error: BaseException) -> str:
    """Return the type and the first line of the message of an error."""
    return sanitize(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")


def causes_of(error: BaseException | None) -> Iterator[BaseException]:
    """Yield the error, its cause, the cause of that, and so on."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


# One encoder for all lines: `json.dumps` with separators makes a new one for each call.
encoder = json.JSONEncoder(separators=(",", ":"))


class JSONFormatter(logging.Formatter):
    """Format a record as a JSON object (docs/decisions/0020: why without a library)."""

    def format(self, record: logging.LogRecord) -> str:
        return encoder.encode(build_members(record))


class TerminalFormatter(logging.Formatter):
    """Format a record as a sentence for a terminal.

    It has time, level, event, instance, outcomes, actor and duration.
    """

    def format(self, record: logging.LogRecord) -> str:
        members = build_members(record)
        name = "/".join(filter(None, map(members.get, ("namespace", "service_name", "instance_id"))))
        outcomes = ", ".join(f"{count} {outcome}" for outcome, count in members.get("outcomes", {}).items())
        duration = f"{members['duration_ms']:g} ms" if "duration_ms" in members else ""
        parts = (members["event"], name, outcomes, members.get("actor"), duration)
        line = f"{members['time'][11:19]} {members['level']:<7} {'  '.join(filter(None, parts))}"
        return f"{line}\n{members['exception']}" if "exception" in members else line


def choose_formatter() -> logging.Formatter:
    return TerminalFormatter() if sys.stderr.isatty() else JSONFormatter()


class StderrHandler(logging.StreamHandler[Any]):
    """Write to the current `sys.stderr`.

    Tests and servers replace it after logging is configured.
    """

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        return sys.stderr


class RefusalLimit(logging.Filter):
    """Limits lines about refused requests and warnings, which strangers can cause in any number.

    A logger writes 10 lines a second for the same event, code and actor; a line with the number of the others follows
    within a second. Lines about what was done, and errors, always pass.
    """

    def __init__(self) -> None:
        super().__init__()
        self._limit = RateLimit(burst=10, interval_seconds=0.1)
        self._suppressed: Counter[Refusal] = Counter()
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        key = refusal_of(record)
        if key is None or self._limit.take(key) == 0:
            return True
        with self._lock:
            first = not self._suppressed
            self._suppressed[key] += 1
        if first:
            timer = threading.Timer(1, self.log_suppressed)
            timer.daemon = True
            timer.start()
        return False

    def log_suppressed(self) -> None:
        """Log the number of lines that were suppressed since the last time."""
        with self._lock:
            suppressed, self._suppressed = self._suppressed, Counter()
        for (name, event, code, actor), lines in suppressed.items():
            fields = {"code": code, "actor": actor, "outcomes": {"suppressed": lines}}
            log_event(logging.getLogger(name), logging.INFO, event, fields)


def refusal_of(record: logging.LogRecord) -> Refusal | None:
    """Return logger, event, code and actor of a record that is limited; None for others."""
    fields = getattr(record, "fields", {})
    refused = record.levelno == logging.WARNING or (fields.get("status") or 0) >= 400
    if not refused or record.levelno >= logging.ERROR:
        return None
    return record.name, str(record.msg), fields.get("code"), fields.get("actor")


class HasTraceback(logging.Filter):
    """Pass only errors with a traceback.

    A refused request has a line in the request log already.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= logging.ERROR and bool(record.exc_info)
