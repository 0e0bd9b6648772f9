"""Instances as their clients keep them: each host beats for its own every ttl/3 +-10 %, and repeats after a second what
got no answer or a 503."""

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.client import registration, token
from tests.faults.http_client import Connection, NoAnswer
from tests.faults.timing import TTL_SECONDS
from tests.waiting import wait_for

REPEAT_SECONDS = 1.0
START_SECONDS = 60
# 401 from a process whose clock is an hour off and has not noticed yet: it is tried again, at another.
ANSWERS = {200, 401, 503}
OUTCOMES = {200, 201, 404}  # of one instance in an array; whoever got a 404 is `lost`


@dataclass
class Host:
    """Some instances of one service that beat together, in one array."""

    service_name: str
    instance_ids: list[str]
    ttl_seconds: int
    lives: bool = True
    beats: bool = True  # False of one that lives: it is cut off
    was_heard: bool = False
    spoken_for_at: float = 0.0  # when it was heard last, or was let beat again

    @property
    def interval_seconds(self) -> float:
        return self.ttl_seconds / 3 * random.uniform(0.9, 1.1)

    def names(self) -> list[dict[str, str]]:
        return [{"service_name": self.service_name, "instance_id": name} for name in self.instance_ids]

    def registrations(self) -> list[dict[str, Any]]:
        return [registration(self.service_name, name, ttl_seconds=self.ttl_seconds) for name in self.instance_ids]


@dataclass
class Fleet:
    """Hosts on an event loop in a thread of their own. `ports` is the load balancer: one after the other.

    Arguments:
        repeats: whether an unanswered beat is repeated after a second, as the contract says.
    """

    ports: Sequence[int]
    repeats: bool = True
    hosts: list[Host] = field(default_factory=list)
    statuses: Counter[int | str] = field(default_factory=Counter)
    outcomes: Counter[int] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)  # who was told that it is not there
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
        """Register instances and let them beat; returns when all have beaten once."""
        names = [f"{prefix}-{number}" for number in range(size)]
        added = [Host(service_name, names[start : start + per_host], ttl_seconds) for start in range(0, size, per_host)]
        for host in added:
            self.loop.call_soon_threadsafe(self.begin, host)
        wait_for(lambda: all(host.was_heard for host in added), START_SECONDS)
        self.hosts += added
        return added

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self.end(), self.loop).result(30)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()

    async def end(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for connection in self.connections:
            connection.close()
        await asyncio.sleep(0)  # a transport closes at the loop's next turn

    @property
    def living(self) -> set[tuple[str, str]]:
        """Who must be on the list."""
        return {(host.service_name, name) for host in self.hosts if host.lives for name in host.instance_ids}

    def begin(self, host: Host) -> None:
        self.tasks.append(self.loop.create_task(self.live(host)))

    async def live(self, host: Host) -> None:
        """A host's life: register, then beat; an instance that is not known any more is registered again."""
        connections = [Connection(port, self.bearer) for port in self.ports]
        self.connections += connections
        await asyncio.sleep(random.uniform(0, host.ttl_seconds / 3))
        while not await self.register(host, connections):
            await asyncio.sleep(REPEAT_SECONDS)
        while True:
            wait_seconds = host.interval_seconds
            if host.beats:
                if await self.beat(host, connections):
                    host.was_heard = True
                    host.spoken_for_at = time.monotonic()
                elif self.repeats:
                    wait_seconds = REPEAT_SECONDS
            await asyncio.sleep(wait_seconds)

    async def register(self, host: Host, connections: list[Connection]) -> bool:
        return await self.call("register", host, host.registrations(), connections) is not None

    async def beat(self, host: Host, connections: list[Connection]) -> bool:
        results = await self.call("heartbeat", host, host.names(), connections)
        if results is None:
            return False
        gone = [name for name, result in zip(host.instance_ids, results, strict=True) if result["status"] == 404]
        if gone:
            self.lost += gone
            await self.register(host, connections)
        return True

    async def call(self, verb: str, host: Host, body: Any, connections: list[Connection]) -> list[Any] | None:
        """The results, or None when there was no answer or an error. The next call goes to the next port."""
        connections.append(connections.pop(0))
        try:
            status, answer = await connections[-1].call("POST", f"/registry/{verb}", body, host.ttl_seconds / 3)
        except NoAnswer as error:
            self.statuses[str(error)] += 1
            return None
        self.statuses[status] += 1
        if status != 200:
            return None
        self.outcomes.update(result["status"] for result in answer["results"])
        return list(answer["results"])

    def assert_it_beats(self) -> None:
        """Raise unless all that beat are heard and answered as they may be: a fleet that is silent is held, and then
        nobody is off the list whatever the registry does."""
        for task in self.tasks:
            assert not task.done(), f"a host's life has ended: {task.exception()!r}"
        assert {status for status in self.statuses if isinstance(status, int)} <= ANSWERS
        assert set(self.outcomes) <= OUTCOMES
        now = time.monotonic()
        unheard = [host for host in self.hosts if host.beats and now - host.spoken_for_at > host.ttl_seconds]
        assert unheard == []


def kill(hosts: Iterable[Host]) -> set[tuple[str, str]]:
    """Let hosts be dead from now on. Returns whom that takes."""
    dead = set()
    for host in hosts:
        host.lives = host.beats = False
        dead |= {(host.service_name, name) for name in host.instance_ids}
    return dead


def cut_off(hosts: Iterable[Host]) -> None:
    """Let hosts live and not be heard."""
    for host in hosts:
        host.beats = False


def heal(hosts: Iterable[Host]) -> None:
    for host in hosts:
        host.spoken_for_at = time.monotonic()
        host.beats = host.lives
