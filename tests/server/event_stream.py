"""Clients of the watch: an event stream, and one that a thread reads."""

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

CONNECTION_ERRORS = (OSError, http.client.HTTPException)
RETRY_SECONDS = 1.0


@dataclass(frozen=True)
class Event:
    """A server-sent event. `data` is its parsed JSON."""

    kind: str
    index: str | None
    data: Any


class WatchRefused(Exception):
    """The response to a watch was a problem."""

    def __init__(self, status: int, problem: Any) -> None:
        super().__init__(f"{status} {problem}")
        self.status = status
        self.problem = problem


class EventStream:
    """An open event stream. Raises WatchRefused at once when the response is a problem."""

    def __init__(
        self, port: int, bearer: str, query: str = "", last_event_id: str | None = None, timeout_seconds: float = 60
    ) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_seconds)
        headers = {"Authorization": f"Bearer {bearer}", "Accept": "text/event-stream"}
        if last_event_id:
            headers["Last-Event-ID"] = last_event_id
        try:
            self.connection.request("GET", f"/registry/watch?{query}", headers=headers)
            self.socket = self.connection.sock
            self.response = self.connection.getresponse()
        except CONNECTION_ERRORS:
            self.connection.close()
            raise
        if self.response.status != 200:
            problem = json.loads(self.response.read())
            self.close()
            raise WatchRefused(self.response.status, problem)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        self.response.close()
        self.connection.close()

    def shut_down(self) -> None:
        """End the connection under a thread that reads it."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    def events(self) -> Iterator[Event]:
        """Yield events until the stream ends. Raises one of CONNECTION_ERRORS when it breaks off."""
        fields: dict[str, str] = {}
        while line := self.response.readline():
            text = line.decode().rstrip("\n")
            if text:
                name, _, value = text.partition(": ")
                fields[name] = value
            elif fields:
                yield Event(fields["event"], fields.get("id"), json.loads(fields["data"]))
                fields = {}

    def changes(self) -> Iterator[Any]:
        """Yield the changes, without other events."""
        return (event.data for event in self.events() if event.kind == "change")


def follow_changes(port: int, bearer: str, query: str, index: str) -> Iterator[Any]:
    """Yield the changes after `index`. Resume where a stream ends, breaks off or gets 503, as clients have to."""
    while True:
        try:
            with contextlib.suppress(*CONNECTION_ERRORS), EventStream(port, bearer, query, index) as stream:
                for event in stream.events():
                    index = event.index or index
                    if event.kind == "change":
                        yield event.data
        except WatchRefused as refused:
            if refused.status != 503:
                raise
            time.sleep(RETRY_SECONDS)


class BackgroundStream:
    """A stream that a thread reads. `ended` is set when it has ended or broken off."""

    def __init__(self, port: int, bearer: str, query: str = "") -> None:
        self.stream = EventStream(port, bearer, query, timeout_seconds=300)
        self.kinds: list[str] = []
        self.changes: list[Any] = []
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.read)
        self.thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def read(self) -> None:
        with contextlib.suppress(*CONNECTION_ERRORS):
            for event in self.stream.events():
                self.kinds.append(event.kind)
                if event.kind == "change":
                    self.changes.append(event.data)
        self.ended.set()

    def close(self) -> None:
        self.stream.shut_down()
        self.thread.join()
        self.stream.close()
