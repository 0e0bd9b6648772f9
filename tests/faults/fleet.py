"""A fleet of instances: each host sends heartbeats for its own every ttl/3 +-10 %.

A request without a response, or with a 503, is repeated after a second, as the contract requires.
"""

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.client import registration, token
from tests.faults.http_client import Connection, NoResponse
from tests.faults.timing import TTL_SECONDS
from tests.waiting import wait_for

REPEAT_SECONDS = 1.0
START_SECONDS = 60
# 401 comes from a process whose clock is an hour off and that has not noticed yet: another process is tried next.
STATUSES = {200, 401, 503}
OUTCOMES = {200, 201, 404}  # of one instance in an array; one that got a 404 is `lost`


@dataclass
class Host:
    """Some instances of one service whose heartbeats go in one array."""

    service_name: str
    instance_ids: list[str]
    ttl_seconds: int
    lives: bool = True
    connected: bool = True  # False of one that lives and is isolated
    has_renewed: bool = False
    renewed_at: float = 0.0  # monotonic: of its last heartbeat, or of its reconnection

    @property
    def interval_seconds(self) -> float:
        return self.ttl_seconds / 3 * random.uniform(0.9, 1.1)

    def names(self) -> list[dict[str, str]]:
        return [{"service_name": self.service_name, "instance_id": name} for name in self.instance_ids]

    def registrations(self) -> list[dict[str, Any]]:
        return [registration(self.service_name, name, ttl_seconds=self.ttl_seconds) for name in self.instance_ids]


@dataclass
class Fleet:
    """Hosts on an event loop in a separate thread.

    Arguments:
        ports: of the web processes; each host calls one after the other, as through a load balancer.
        repeats: whether a heartbeat without a response is repeated after a second.
    """

    ports: Sequence[int]
    repeats: bool = True
    hosts: list[Host] = field(default_factory=list)
    permanent: set[tuple[str, str]] = field(default_factory=set)  # instances without a TTL
    statuses: Counter[int | str] = field(default_factory=Counter)
    outcomes: Counter[int] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)  # instances that got a 404
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    connections: list[Connection] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.bearer = token("registry-services", "team-faults", subject="fleet", ttl_seconds=7200)
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def add(
        self, service_name: str, size: int, ttl_seconds: int = TTL_SECONDS, per_host: int = 5, prefix: str = "i"
    ) -> list[Host]:
        """Register instances and start their heartbeats; returns when each has had one."""
        names = [f"{prefix}-{number}" for number in range(size)]
        added = [Host(service_name, names[start : start + per_host], ttl_seconds) for start in range(0, size, per_host)]
        for host in added:
            self.loop.call_soon_threadsafe(self.start_host, host)
        wait_for(lambda: all(host.has_renewed for host in added), START_SECONDS)
        self.hosts += added
        return added

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self.end_tasks(), self.loop).result(30)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()

    async def end_tasks(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for connection in self.connections:
            connection.close()
        await asyncio.sleep(0)  # a transport closes at the loop's next turn

    @property
    def living(self) -> set[tuple[str, str]]:
        """Return the instances that must be on the list."""
        leased = {(host.service_name, name) for host in self.hosts if host.lives for name in host.instance_ids}
        return leased | self.permanent

    def start_host(self, host: Host) -> None:
        self.tasks.append(self.loop.create_task(self.run_host(host)))

    async def run_host(self, host: Host) -> None:
        """Register, then send heartbeats. An instance that got a 404 is registered again."""
        connections = [Connection(port, self.bearer) for port in self.ports]
        self.connections += connections
        await asyncio.sleep(random.uniform(0, host.ttl_seconds / 3))
        while not await self.register(host, connections):
            await asyncio.sleep(REPEAT_SECONDS)
        while True:
            wait_seconds = host.interval_seconds
            if host.connected:
                if await self.send_heartbeats(host, connections):
                    host.has_renewed = True
                    host.renewed_at = time.monotonic()
                elif self.repeats:
                    wait_seconds = REPEAT_SECONDS
            await asyncio.sleep(wait_seconds)

    async def register(self, host: Host, connections: list[Connection]) -> bool:
        return await self.call("register", host, host.registrations(), connections) is not None

    async def send_heartbeats(self, host: Host, connections: list[Connection]) -> bool:
        results = await self.call("heartbeat", host, host.names(), connections)
        if results is None:
            return False
        unknown = [name for name, result in zip(host.instance_ids, results, strict=True) if result["status"] == 404]
        if unknown:
            self.lost += unknown
            await self.register(host, connections)
        return True

    async def call(self, operation: str, host: Host, body: Any, connections: list[Connection]) -> list[Any] | None:
        """Return the results, or None without a response or for an error. The next call goes to the next port."""
        connections.append(connections.pop(0))
        try:
            status, answer = await connections[-1].call("POST", f"/registry/{operation}", body, host.ttl_seconds / 3)
        except NoResponse as error:
            self.statuses[str(error)] += 1
            return None
        self.statuses[status] += 1
        if status != 200:
            return None
        self.outcomes.update(result["status"] for result in answer["results"])
        return list(answer["results"])

    def assert_heartbeats_succeed(self) -> None:
        """Raise unless all hosts that are connected have renewed their leases lately, with permitted responses.

        The leases of a fleet without heartbeats are protected: its instances stay on the list whatever is wrong.
        """
        for task in self.tasks:
            assert not task.done(), f"a host's task has ended: {task.exception()!r}"
        assert {status for status in self.statuses if isinstance(status, int)} <= STATUSES
        assert set(self.outcomes) <= OUTCOMES
        now = time.monotonic()
        not_renewed = [host for host in self.hosts if host.connected and now - host.renewed_at > host.ttl_seconds]
        assert not_renewed == []


def kill(hosts: Iterable[Host]) -> set[tuple[str, str]]:
    """Let hosts send no heartbeats any more. Returns their instances, which must expire."""
    dead = set()
    for host in hosts:
        host.lives = host.connected = False
        dead |= {(host.service_name, name) for name in host.instance_ids}
    return dead


def isolate(hosts: Iterable[Host]) -> None:
    """Drop the heartbeats of hosts that live."""
    for host in hosts:
        host.connected = False


def reconnect(hosts: Iterable[Host]) -> None:
    for host in hosts:
        host.renewed_at = time.monotonic()
        host.connected = host.lives
