"""The open connections of a server: how many there may be, and which are closed for others."""

import asyncio
import enum
import functools
import ipaddress
import resource
from collections import Counter
from typing import Any, Protocol, cast
from weakref import WeakKeyDictionary

from asgiref.typing import ASGI3Application
from django.conf import settings
from uvicorn import Config
from uvicorn.server import ServerState

from service_registry import metrics
from service_registry.asgi.server import limits
from service_registry.asgi.server.anonymous_queue import AnonymousQueue
from service_registry.exceptions import TooManyConnections


class Spare(enum.IntEnum):
    """The order in which connections are closed in favour of new ones."""

    ANONYMOUS = 0
    ANONYMOUS_REQUEST = 1
    IDLE = 2


class Member(Protocol):
    """A connection as the table sees it."""

    address: str | None
    deadline: float
    idle_since: float

    @property
    def is_active(self) -> bool: ...

    @property
    def spare(self) -> Spare | None: ...

    def expire(self) -> None: ...

    def cut(self, reason: str) -> None: ...


class ConnectionTable:
    """The connections of one server, and what they share. Belongs to the event loop.

    Attributes:
        anonymous: starts the requests of clients without an accepted token.
        buffer: what the kernel has received, until a connection copies it in the same step.
        anonymous_buffer: a part of it, for connections without an accepted token.
        admitted: those that count.
        refused: those whose client may still read why, before they are closed.
    """

    def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, Any]) -> None:
        self.application = cast(ASGI3Application, config.loaded_app)
        self.root_path = config.root_path
        self.server_state = server_state
        self.app_state = app_state
        self.loop = asyncio.get_running_loop()
        self.anonymous = AnonymousQueue(self.application, self.loop)
        self.buffer = memoryview(bytearray(limits.READ_BYTES))
        self.anonymous_buffer = self.buffer[: limits.ANONYMOUS_READ_BYTES]
        self.keep_alive_seconds: int = settings.REGISTRY_KEEP_ALIVE_SECONDS
        self.max_connections = min(settings.REGISTRY_MAX_CONNECTIONS, allowed_files() - limits.SPARE_FILES)
        self.max_per_address: int = settings.REGISTRY_MAX_CONNECTIONS_PER_ADDRESS
        self.is_proxy = functools.lru_cache(1024)(proxy_test(config.forwarded_allow_ips))
        self.admitted: set[Member] = set()
        self.refused: set[Member] = set()
        self.by_address: Counter[str] = Counter()
        self.spares: list[tuple[Spare, float, Member]] = []
        self.next_search_at = 0.0
        self.is_checking = False
        self._headers: list[tuple[bytes, bytes]] | None = None
        self._header_bytes = b""
        self.default_lines = 0

    def default_headers(self) -> bytes:
        """Return the server's own headers; uvicorn replaces their list every second."""
        headers = self.server_state.default_headers
        if headers is not self._headers:
            self._headers = headers
            self._header_bytes = b"".join(b"%b: %b\r\n" % each for each in headers)
            self.default_lines = len(headers)
        return self._header_bytes

    def admit(self, connection: Member) -> TooManyConnections | None:
        """Count a new connection, or return why there is no place for it.

        A full table closes another connection for it, if one can be spared.
        """
        self.server_state.connections.add(connection)  # type: ignore[arg-type] # uvicorn names its own classes
        self.check_later()
        address = connection.address
        counts = bool(address) and self.max_per_address > 0 and not self.is_proxy(address)
        if counts and self.by_address[cast(str, address)] >= self.max_per_address:
            return TooManyConnections("from this address")
        if len(self.admitted) >= self.max_connections and not self.make_room():
            return TooManyConnections("in all")
        self.admitted.add(connection)
        if counts:
            self.by_address[cast(str, address)] += 1
        else:
            connection.address = None
        return None

    def remove(self, connection: Member) -> None:
        """Forget a connection; it may be forgotten already."""
        self.server_state.connections.discard(connection)
        self.refused.discard(connection)
        self.release(connection)

    def release(self, connection: Member) -> None:
        """Free the place of an admitted connection."""
        if connection not in self.admitted:
            return
        self.admitted.remove(connection)
        if connection.address:
            self.by_address[connection.address] -= 1
            if not self.by_address[connection.address]:
                del self.by_address[connection.address]

    def may_linger(self, connection: Member) -> bool:
        """Return whether a refused connection may stay for a moment. It takes no place of others meanwhile."""
        self.release(connection)
        if len(self.refused) >= limits.MAX_LINGERING:
            return False
        self.refused.add(connection)
        return True

    def make_room(self) -> bool:
        """Close the connection that is spared best, the one that has been idle for longest first."""
        while self.spares or self.search():
            spare, since, connection = self.spares.pop()
            if connection in self.admitted and connection.spare == spare and connection.idle_since == since:
                connection.cut("displaced")
                return True
        return False

    def search(self) -> bool:
        """Find connections that can be spared; not more often than a flood of new ones can afford."""
        now = self.loop.time()
        if now < self.next_search_at:
            return False
        self.next_search_at = now + limits.SEARCH_PAUSE_SECONDS
        found = [(spare, each.idle_since, each) for each in self.admitted if (spare := each.spare) is not None]
        # The list outlives changes. While there are anonymous connections, those of callers stay out of it.
        anonymous = [entry for entry in found if entry[0] != Spare.IDLE]
        self.spares = sorted(anonymous or found, key=lambda entry: entry[:2], reverse=True)
        return bool(self.spares)

    def check_later(self) -> None:
        if not self.is_checking:
            self.is_checking = True
            self.loop.call_later(limits.CHECK_SECONDS, self.check)

    def check(self) -> None:
        """Let connections whose deadline has passed act on it, and report how many there are."""
        self.is_checking = False
        now = self.loop.time()
        active = 0
        for connection in [*self.admitted, *self.refused]:
            active += connection.is_active
            if connection.deadline < now:
                connection.expire()
        metrics.connections.labels("active").set(active)
        metrics.connections.labels("idle").set(len(self.admitted) - active)
        if self.admitted or self.refused:
            self.check_later()


_tables: WeakKeyDictionary[ServerState, ConnectionTable] = WeakKeyDictionary()


def connection_table(config: Config, server_state: ServerState, app_state: dict[str, Any]) -> ConnectionTable:
    """Return the table of a server, which its first connection makes."""
    table = _tables.get(server_state)
    if table is None:
        table = _tables[server_state] = ConnectionTable(config, server_state, app_state)
    return table


def allowed_files() -> int:
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1_000_000 if soft == resource.RLIM_INFINITY else soft


def proxy_test(trusted: list[str] | str) -> Any:
    """Return a function that tests whether an address is a trusted proxy's, by uvicorn's FORWARDED_ALLOW_IPS."""
    entries = [each.strip() for each in (trusted.split(",") if isinstance(trusted, str) else trusted)]
    networks = [network for entry in entries if (network := parse_network(entry)) is not None]

    def is_proxy(address: str) -> bool:
        parsed = ipaddress.ip_address(address)
        return "*" in entries or any(parsed in network for network in networks)

    return is_proxy


def parse_network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """Return a network, or None for what is none, as a host name: no client is compared with it."""
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
