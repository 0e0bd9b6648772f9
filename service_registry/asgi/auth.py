"""Who asks, for doors that let people wait: the same judgement as Django's, on a thread where it needs one."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from asgiref.typing import ASGIReceiveCallable, ASGISendCallable
from django.conf import settings
from django.db import Error

from service_registry.api.authentication import caller_of
from service_registry.asgi.request import Arrived, bearer_of
from service_registry.caller import Caller
from service_registry.database.thread_connection import prepare_thread_connection
from service_registry.exceptions import ClockIsWrong, TooBusy
from service_registry.identity.errors import KeysUnavailable, TokenInvalid
from service_registry.identity.principal import Principal
from service_registry.identity.tokens import cached_principal_of, principal_of
from service_registry.permissions import Action, grants

Answer = TypeVar("Answer")

# Their own, beside those of Django's requests: who only reads from memory need not queue behind those who write.
THREADS = 2
# And those of whoever reads the log from far back, page after page: who only shows a token need not queue behind them.
PAGING_THREADS = 2
PAGING_AT_MOST = 200


@dataclass(frozen=True, slots=True)
class Asking:
    """A caller, and until when the token is good, the leeway included, in seconds since the epoch."""

    caller: Caller
    expires_at: float

    @property
    def seconds_left(self) -> float:
        return self.expires_at - time.time()


@dataclass(slots=True)
class Exchange:
    """A request from somebody who may make it, and the client's two ends. `asking` is judged anew when its token runs
    out."""

    request: Arrived
    asking: Asking
    receive: ASGIReceiveCallable
    send: ASGISendCallable


class Askers:
    """Judges tokens, and reads what has to be read of the database, without stopping the event loop."""

    def __init__(self) -> None:
        self.threads = ThreadPoolExecutor(THREADS, thread_name_prefix="live")
        self.paging_threads = ThreadPoolExecutor(PAGING_THREADS, thread_name_prefix="paging")
        self.paging = 0

    async def on_thread(self, do: Callable[[], Answer]) -> Answer:
        """Run `do`, which may ask the database, with its connection as at the start of a request."""
        return await asyncio.get_running_loop().run_in_executor(self.threads, with_connection(do))

    async def paged(self, do: Callable[[], Answer]) -> Answer:
        """The same for a page of the log. Raises TooBusy when too many wait for theirs."""
        if self.paging >= PAGING_AT_MOST:
            raise TooBusy
        self.paging += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self.paging_threads, with_connection(do))
        finally:
            self.paging -= 1

    async def asking(self, request: Arrived, action: Action) -> Asking | None:
        """Who asks, when the token is good and the action allowed; None where Django has to say what is missing."""
        token = bearer_of(request)
        if token is None:
            return None
        principal = cached_principal_of(token)
        try:
            if principal is not None and grants.are_fresh:
                asking = judged(principal)
            else:
                asking = await self.on_thread(lambda: judged(principal_of(token)))
        except (TokenInvalid, KeysUnavailable, ClockIsWrong, Error):
            return None
        return None if action.missing(asking.caller.granted) else asking

    async def still_good(self, exchange: Exchange, action: Action) -> bool:
        """Judge the token again, once it has run out."""
        if exchange.asking.seconds_left <= 0:
            asking = await self.asking(exchange.request, action)
            if asking is None:
                return False
            exchange.asking = asking
        return True


def with_connection(do: Callable[[], Answer]) -> Callable[[], Answer]:
    def run() -> Answer:
        prepare_thread_connection()
        return do()

    return run


def judged(principal: Principal) -> Asking:
    return Asking(caller_of(principal), principal.expires_at + settings.OIDC_LEEWAY_SECONDS)
