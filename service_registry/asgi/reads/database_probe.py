"""Whether the database answers this process's requests. The feed has a connection of its own, which may be barred while
those of the requests work, so that an old replica alone says nothing of it."""

import asyncio

from django.db import Error, connection

from service_registry.asgi.auth import Askers
from service_registry.asgi.transport import now
from service_registry.database.outages import is_outage

# How long an answer to that is good; no answer for so long is one, too.
GOOD_SECONDS = 1.0
# For so long after it was away nobody waits to hear that it still is: it may take seconds to say so, again and again.
AWAY_SECONDS = 10.0


class Presence:
    """Asks at most once a second, whoever wants to know."""

    def __init__(self, askers: Askers) -> None:
        self.askers = askers
        self.good_until = 0.0
        self.away_until = 0.0
        self.asking: asyncio.Task[None] | None = None

    async def answers(self) -> bool:
        """Whether the database did, just now. Where it is away, whether it did when it was asked last."""
        if self.asking is None or (self.asking.done() and now() >= self.good_until):
            self.asking = asyncio.create_task(self.ask())
        if not self.is_away and not await self.has_answered(self.asking):
            self.away_until = now() + AWAY_SECONDS
        return not self.is_away

    @property
    def is_away(self) -> bool:
        return now() < self.away_until

    async def has_answered(self, asking: asyncio.Task[None]) -> bool:
        done, _ = await asyncio.wait([asking], timeout=GOOD_SECONDS)
        return bool(done)

    async def ask(self) -> None:
        away_until = 0.0
        try:
            await self.askers.on_thread(ping)
        except Error as error:
            if is_outage(error):
                away_until = now() + AWAY_SECONDS
        finally:
            self.away_until = away_until
            self.good_until = now() + GOOD_SECONDS


def ping() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
