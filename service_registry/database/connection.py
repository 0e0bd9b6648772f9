"""Connections to PostgreSQL with a deadline for every wait, and a circuit breaker.

A frozen server does not enforce its own timeouts: see `docs/decisions/0007-deadlines-on-the-database.md`.
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

# Longer than every timeout of the server (3.5 s), whose error is more precise than ours.
DEADLINE_SECONDS = 4.0
CANCEL_SECONDS = 1.0
CONNECT_SECONDS = 3
BREAKER_SECONDS = 1.0


class DatabaseUnresponsive(psycopg.OperationalError):
    """The database did not answer in time, or the circuit breaker refuses to ask it."""


class CircuitBreaker:
    """Refuses new connections while the server does not answer.

    A waiting thread answers no other request. One thread at a time tries to connect, a second after the previous
    one has given up. All others are refused at once, however long the attempt takes: a host name with several
    addresses takes several timeouts.
    """

    def __init__(self) -> None:
        self._until: float | None = None
        self._lock = threading.Lock()

    def trip(self) -> None:
        with self._lock:
            self._until = time.monotonic() + BREAKER_SECONDS

    def reset(self) -> None:
        self._until = None

    def refuse(self) -> None:
        """Raise DatabaseUnresponsive while the circuit is open; otherwise return.

        A thread for which an open circuit is due for a trial returns, too, and must then call `trip` or `reset`.
        """
        with self._lock:
            if self._until is None:
                return
            if time.monotonic() < self._until:
                raise DatabaseUnresponsive("the database did not answer a moment ago")
            self._until = math.inf


breaker = CircuitBreaker()
os.register_at_fork(after_in_child=breaker.reset)  # the trial belongs to a thread of the parent


class Connection(psycopg.Connection[Any]):
    """A connection with a deadline for each exchange with the server.

    An exchange is a statement with all its rows, or a commit.
    """

    deadline_seconds: float | None = DEADLINE_SECONDS
    committing = False

    @classmethod
    def connect(cls, conninfo: str = "", **options: Any) -> Self:
        """Connect. Raises DatabaseUnresponsive at once while the circuit breaker is open."""
        breaker.refuse()
        try:
            made = super().connect(conninfo, **options)
        except ConnectionTimeout:
            breaker.trip()
            raise
        except BaseException:
            breaker.reset()  # a server that refuses does answer
            raise
        breaker.reset()
        return made

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """Wait for the server, until the deadline.

        After the deadline, close the connection, whose state is unknown, and raise DatabaseUnresponsive.
        """
        try:
            return super().wait(gen, interval, self.deadline_seconds if timeout is None else timeout)
        except _WaitTimeout:
            self.abandon()
            raise DatabaseUnresponsive(f"the database did not answer within {self.deadline_seconds:g} s") from None

    def commit(self) -> None:
        self.committing = True
        try:
            super().commit()
        finally:
            self.committing = False

    def abandon(self) -> None:
        """Close the connection, and cancel its statement.

        The server could otherwise work on it for any time. A commit is not cancelled, because its outcome would
        be unknown. Without a successful cancellation the server counts as unresponsive.
        """
        cancelled = False
        if not self.committing:
            with contextlib.suppress(psycopg.Error):
                self.cancel_safe(timeout=CANCEL_SECONDS)
                cancelled = True
        self.close()
        if not cancelled:
            breaker.trip()
