"""Connections to PostgreSQL on which no wait is endless, also while the server is frozen and keeps no time itself.

Why the deadline stands here: `docs/decisions/0007-deadlines-on-the-database.md`.
"""

import contextlib
import math
import os
import threading
import time
from typing import Any, Self

import psycopg
from psycopg.abc import RV, PQGen
from psycopg.errors import ConnectionTimeout, _WaitTimeout

# Longer than any timeout of the server's (3.5 s): its answer says more than our giving up.
DEADLINE_SECONDS = 4.0
CANCEL_SECONDS = 1.0
CONNECT_SECONDS = 3
SILENT_SECONDS = 1.0


class DatabaseSilent(psycopg.OperationalError):
    """The database did not answer in time, or did not a moment ago and has not been asked again."""


class Breaker:
    """What this process found out last about a server that does not answer, so that not every thread has to.

    While it is silent one thread at a time tries to connect, a second after the last has given up; all others are
    refused at once, however long it takes, as by the number of its addresses. A thread that waits answers nobody.
    """

    def __init__(self) -> None:
        self._until: float | None = None
        self._lock = threading.Lock()

    def trip(self) -> None:
        with self._lock:
            self._until = time.monotonic() + SILENT_SECONDS

    def reset(self) -> None:
        self._until = None

    def refuse(self) -> None:
        """Raise DatabaseSilent; or return, and then the caller is the one that tries, and says what came of it."""
        with self._lock:
            if self._until is None:
                return
            if time.monotonic() < self._until:
                raise DatabaseSilent("the database did not answer a moment ago")
            self._until = math.inf


breaker = Breaker()
os.register_at_fork(after_in_child=breaker.reset)  # the thread that tries is the parent's


class Connection(psycopg.Connection[Any]):
    """One wait is one exchange with the server: a statement with all its rows, or a commit."""

    deadline_seconds: float | None = DEADLINE_SECONDS
    committing = False

    @classmethod
    def connect(cls, conninfo: str = "", **options: Any) -> Self:
        """Raises DatabaseSilent at once when it did not answer a moment ago."""
        breaker.refuse()
        try:
            made = super().connect(conninfo, **options)
        except ConnectionTimeout:
            breaker.trip()
            raise
        except BaseException:
            breaker.reset()  # a refusal is an answer
            raise
        breaker.reset()
        return made

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """Raises DatabaseSilent after the deadline; the connection is closed then, as nobody knows its state."""
        try:
            return super().wait(gen, interval, self.deadline_seconds if timeout is None else timeout)
        except _WaitTimeout:
            self.give_up()
            raise DatabaseSilent(f"the database did not answer within {self.deadline_seconds:g} s") from None

    def commit(self) -> None:
        self.committing = True
        try:
            super().commit()
        finally:
            self.committing = False

    def give_up(self) -> None:
        """Close the connection. The statement is cancelled first, since the server may work on it for as long as it
        likes; a commit is not, as nobody could say what became of it."""
        cancelled = False
        if not self.committing:
            with contextlib.suppress(psycopg.Error):
                self.cancel_safe(timeout=CANCEL_SECONDS)
                cancelled = True
        self.close()
        if not cancelled:
            breaker.trip()
