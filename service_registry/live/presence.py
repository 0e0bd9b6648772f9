"""Whether the database answers this process's requests. The feed has a connection of its own, which may be barred while
those of the requests work, so that an old replica alone says nothing of it."""

import asyncio

from django.db import Error, connection

from service_registry.database.outages import is_outage
from service_registry.live.asking import Askers
from service_registry.live.pauses import now

# How long an answer to that is good.
GOOD_SECONDS = 1.0


class Presence:
    """Asks at most once a second, whoever wants to know."""

    def __init__(self, askers: Askers) -> None:
        self.askers = askers
        self.good_until = 0.0
        self.asking: asyncio.Task[bool] | None = None

    async def answers(self) -> bool:
        """Whether the database did, just now."""
        if self.asking is None or (self.asking.done() and now() >= self.good_until):
            self.asking = asyncio.create_task(self.ask())
        return await asyncio.shield(self.asking)

    async def ask(self) -> bool:
        try:
            await self.askers.on_thread(ping)
        except Error as error:
            return not is_outage(error)
        finally:
            self.good_until = now() + GOOD_SECONDS
        return True


def ping() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
