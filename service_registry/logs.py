"""How the registry logs: one line an event, JSON for machines and a short sentence on a terminal.

All text that somebody else made passes `clean`; metadata and tokens are never handed to a logger, and what looks like a
token is taken out here all the same.
"""

import functools
import json
import logging
import re
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

TEXT_CHARACTERS = 256
TRACE_CHARACTERS = 8_000
# A JSON Web Token, or the beginning of one: its first part is the JSON of its header in base64.
TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]{5,}[A-Za-z0-9_.-]*")

OPERATION = (
    *("request_id", "method", "route", "status", "code", "actor", "namespace", "service_name", "instance_id"),
    *("items", "outcomes", "duration_ms", "cause"),
)


def clean(text: str) -> str:
    """Text that is safe to print: on one line, without tokens, at most 256 characters."""
    if "eyJ" in text:
        text = TOKEN.sub("[token]", text)
    if len(text) > TEXT_CHARACTERS:
        text = text[: TEXT_CHARACTERS - 1] + "…"
    if not text.isprintable():
        text = "".join(part if part.isprintable() else ascii(part)[1:-1] for part in text)
    return text


def event(logger: logging.Logger, level: int, name: str, fields: Mapping[str, Any]) -> None:
    """Log an operation. `fields` are some of OPERATION; those that are None are left out. With `error`, an exception,
    come its traceback when nobody expected it, and its cause when somebody did."""
    error = fields.get("error")
    if error is not None and level < logging.ERROR:
        fields, error = {**fields, "cause": saying(error)}, None
    logger.log(level, name, extra={"fields": fields}, exc_info=error)


def document(record: logging.LogRecord) -> dict[str, Any]:
    """The line's members, in the order in which they are printed."""
    members: dict[str, Any] = {
        "time": f"{second(int(record.created))}.{int(record.msecs):03d}Z",
        "level": record.levelname.lower(),
        "logger": record.name,
        "event": clean(record.getMessage()),
    }
    fields = getattr(record, "fields", None) or of_request(record)
    for name in OPERATION:
        if (value := fields.get(name)) is not None:
            members[name] = clean(value) if isinstance(value, str) else value
    members["process"] = record.process
    if record.exc_info and record.exc_info[1]:
        members["exception"] = trace(record.exc_info[1])
    return members


@functools.lru_cache(maxsize=2)
def second(seconds: int) -> str:
    """A second since the epoch as RFC 3339 writes it, without its zone. Made once for the lines of that second."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def of_request(record: logging.LogRecord) -> Mapping[str, Any]:
    """What is known of a record that Django made of a request."""
    return {"request_id": getattr(getattr(record, "request", None), "request_id", None)}


def trace(error: BaseException) -> str:
    """Where an error came from, without more of its text than its first line: PostgreSQL's others repeat the rows that
    it refused."""
    texts = [
        f"Traceback (most recent call last):\n{''.join(traceback.format_tb(each.__traceback__))}{saying(each)}"
        for each in chain(error)
    ]
    return "\n".join(reversed(texts))[-TRACE_CHARACTERS:]


def saying(error: BaseException) -> str:
    """The error in a line."""
    return clean(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, what caused it, and so on."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


# Kept, since `json.dumps` would make a new one each time.
encoder = json.JSONEncoder(separators=(",", ":"))


class JSONFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return encoder.encode(document(record))


class TerminalFormatter(logging.Formatter):
    """Time, what happened to whom by whom, and how long it took."""

    def format(self, record: logging.LogRecord) -> str:
        members = document(record)
        name = "/".join(filter(None, map(members.get, ("namespace", "service_name", "instance_id"))))
        outcomes = ", ".join(f"{count} {outcome}" for outcome, count in members.get("outcomes", {}).items())
        took = f"{members['duration_ms']:g} ms" if "duration_ms" in members else ""
        words = (members["event"], name, outcomes, members.get("actor"), took)
        line = f"{members['time'][11:19]} {members['level']:<7} {'  '.join(filter(None, words))}"
        return f"{line}\n{members['exception']}" if "exception" in members else line


def formatter() -> logging.Formatter:
    return TerminalFormatter() if sys.stderr.isatty() else JSONFormatter()


class StderrHandler(logging.StreamHandler[Any]):
    """Writes to what is stderr at the time, and not to what it was when logging was set up."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        return sys.stderr


class FromException(logging.Filter):
    """Lets through what carries a traceback: that a request was refused, its own line says."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= logging.ERROR and bool(record.exc_info)
