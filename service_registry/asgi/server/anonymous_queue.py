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
    number: int

    def run(self, application: ASGI3Application) -> Coroutine[None, None, None]: ...


class AnonymousQueue:
    """Starts exchanges at once while they are few, and the others in their order, a few after each pause.

    A flood of small requests would otherwise fill every turn of the event loop, and keep the interpreter from the
    threads of writes. Belongs to the event loop.

    Probes connect anew for each request. So first requests of connections and later ones start in turn: thousands of
    connections that send on and on would otherwise delay a probe until it fails.

    Attributes:
        first: exchanges that are the first of their connection.
        later: all others.
        left: number of exchanges that may start before the timer fires.
    """

    def __init__(self, application: ASGI3Application, loop: asyncio.AbstractEventLoop) -> None:
        self.application = application
        self.loop = loop
        self.first: deque[QueuedExchange] = deque()
        self.later: deque[QueuedExchange] = deque()
        self.left = limits.ANONYMOUS_REQUESTS
        self.timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self.first) + len(self.later)

    def add(self, exchange: QueuedExchange) -> None:
        (self.first if exchange.number == 1 else self.later).append(exchange)
        if self.timer is None:
            self.timer = self.loop.call_later(limits.ANONYMOUS_PAUSE_SECONDS, self.refill)
        self.start()

    def refill(self) -> None:
        """Start the next exchanges, and call this again after a pause while any are left."""
        self.left = limits.ANONYMOUS_REQUESTS
        self.timer = self.loop.call_later(limits.ANONYMOUS_PAUSE_SECONDS, self.refill) if len(self) else None
        self.start()

    def start_all(self) -> None:
        """Start all at once: a shutdown waits for requests that have started, and drops the others."""
        self.left = len(self)
        self.start()

    def start(self) -> None:
        while self.left and len(self):
            is_turn_of_first = self.left % 2 == 1
            queue = (self.first or self.later) if is_turn_of_first else (self.later or self.first)
            exchange = queue.popleft()
            if not exchange.is_disconnected:
                self.left -= 1
                self.loop.create_task(exchange.run(self.application))
