"""Start the requests of clients without an accepted token at a bounded rate."""

import asyncio
from collections import deque
from collections.abc import Coroutine
from typing import Protocol

from asgiref.typing import ASGI3Application

from service_registry.asgi.server import limits


class QueuedExchange(Protocol):
    """An exchange of a request and its response, as this queue sees it."""

    is_disconnected: bool

    def run(self, application: ASGI3Application) -> Coroutine[None, None, None]: ...


class AnonymousQueue:
    """Starts exchanges at once while they are few, and the others in their order, a few after each pause.

    A flood of small requests would otherwise fill every turn of the event loop, and keep the interpreter from the
    threads of writes. Belongs to the event loop.

    Attributes:
        left: number of exchanges that may start before the timer fires.
    """

    def __init__(self, application: ASGI3Application, loop: asyncio.AbstractEventLoop) -> None:
        self.application = application
        self.loop = loop
        self.waiting: deque[QueuedExchange] = deque()
        self.left = limits.ANONYMOUS_REQUESTS
        self.timer: asyncio.TimerHandle | None = None

    def add(self, exchange: QueuedExchange) -> None:
        self.waiting.append(exchange)
        if self.timer is None:
            self.timer = self.loop.call_later(limits.ANONYMOUS_PAUSE_SECONDS, self.refill)
        self.start()

    def refill(self) -> None:
        """Start the next exchanges, and call this again after a pause while any are left."""
        self.left = limits.ANONYMOUS_REQUESTS
        self.timer = self.loop.call_later(limits.ANONYMOUS_PAUSE_SECONDS, self.refill) if self.waiting else None
        self.start()

    def start_all(self) -> None:
        """Start all at once: a shutdown waits for requests that have started, and drops the others."""
        self.left = len(self.waiting)
        self.start()

    def start(self) -> None:
        while self.left and self.waiting:
            exchange = self.waiting.popleft()
            if not exchange.is_disconnected:
                self.left -= 1
                self.loop.create_task(exchange.run(self.application))
