"""Watchers as clients write them: a stream of server-sent events, and a poll."""

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True)
class Event:
    """A server-sent event. `data` is its JSON."""

    kind: str
    index: str | None
    data: Any


class Stream:
    """An open event stream. Ends by itself, or by `close`.

    Raises Refused at once when the answer is a problem.
    """

    def __init__(
        self, port: int, bearer: str, query: str = "", last_event_id: str | None = None, timeout_seconds: float = 30
    ) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_seconds)
        headers = {"Authorization": f"Bearer {bearer}", "Accept": "text/event-stream"}
        if last_event_id:
            headers["Last-Event-ID"] = last_event_id
        self.connection.request("GET", f"/registry/watch?{query}", headers=headers)
        self.socket = self.connection.sock
        self.response = self.connection.getresponse()
        if self.response.status != 200:
            problem = json.loads(self.response.read())
            self.close()
            raise Refused(self.response.status, problem)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        self.response.close()
        self.connection.close()

    def hang_up(self) -> None:
        """Let another thread that reads the stream find its end."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    def events(self) -> Iterator[Event]:
        """All events until the stream ends. Raises OSError or http.client.HTTPException when it breaks off."""
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
        """The changes alone."""
        return (event.data for event in self.events() if event.kind == "change")


class Refused(Exception):
    """The watch was not begun."""

    def __init__(self, status: int, problem: Any) -> None:
        super().__init__(f"{status} {problem}")
        self.status = status
        self.problem = problem


BROKEN = (OSError, http.client.HTTPException)


class Listening:
    """A stream that is read on a thread. `ended` when it ended or broke off."""

    def __init__(self, port: int, bearer: str, query: str = "") -> None:
        self.stream = Stream(port, bearer, query, timeout_seconds=120)
        self.kinds: list[str] = []
        self.changes: list[Any] = []
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.listen)
        self.thread.start()

    def listen(self) -> None:
        with contextlib.suppress(*BROKEN):
            for event in self.stream.events():
                self.kinds.append(event.kind)
                if event.kind == "change":
                    self.changes.append(event.data)
        self.ended.set()

    def close(self) -> None:
        self.stream.hang_up()
        self.thread.join()
        self.stream.close()
