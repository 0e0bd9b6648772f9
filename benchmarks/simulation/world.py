"""Simulate clients, the faults between them and the registry, and the passing of time."""

import heapq
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from benchmarks.simulation.registry import Registry
from service_registry.expiry.protection import Limits

SWEEP_SECONDS = 2.0
# Clients send a heartbeat every third of their TTL, give or take a tenth of that.
HEARTBEATS_PER_TTL = 3
JITTER = 0.1
REPEAT_SECONDS = 1.0
NEWCOMERS_TTL_SECONDS = 30
# When the first fault happens. By then the clients have spread over their intervals.
BEGIN = 100.0


@dataclass(slots=True)
class Client:
    """A client with one instance, which lives until `dies_at`."""

    key: int
    service: int
    ttl_seconds: int
    interval_seconds: float
    dies_at: float = float("inf")


# A time, or a function that draws one for each client.
Time = float | Callable[[], float]


def draw(time: Time) -> float:
    return time() if callable(time) else time


class World:
    """A fleet, its registry and virtual time. At first every client lives and reaches the registry."""

    def __init__(
        self,
        seed: int,
        services: Iterable[tuple[int, int]],
        *,
        interval: float = 1 / HEARTBEATS_PER_TTL,
        lockstep: bool = False,
        repeats: bool = False,
        limits: Limits | None = None,
    ) -> None:
        """
        Args:
            seed: seed of all random numbers.
            services: size, and TTL in seconds, of each service.
            interval: time between two heartbeats, as a share of the TTL.
            lockstep: whether all clients send heartbeats at the same moments, without jitter.
            repeats: whether a client repeats a lost heartbeat after a second; else it waits for the next.
            limits: limits of the rules.
        """
        self.chance = random.Random(seed)
        self.registry = Registry(limits or Limits())
        self.jitter = 0.0 if lockstep else JITTER
        self.repeats = repeats
        self.database_down: tuple[float, float] = (0.0, 0.0)
        # The interval in seconds at which the lone web process restarts, and the seconds for which it is down.
        self.web_restarts: tuple[float, float] | None = None
        self.lost_share = 0.0
        # Ids of the first service that register at each sweep and send no heartbeat.
        self.newcomers_per_sweep = 0
        self.clients: list[Client] = []
        self._cuts: dict[int, list[tuple[float, float]]] = {}
        self._heartbeats: list[tuple[float, int]] = []
        self._sweep_at = 0.0
        for service, (size, ttl_seconds) in enumerate(services):
            for _ in range(size):
                self.add(service, ttl_seconds, interval * ttl_seconds, lockstep)

    def add(self, service: int, ttl_seconds: int, interval_seconds: float, lockstep: bool = False) -> Client:
        """Add a client that has sent a heartbeat already, at a random point of its interval."""
        phase = 0.0 if lockstep else self.chance.uniform(0, interval_seconds)
        key = self.registry.register(phase - interval_seconds, service, ttl_seconds, beats=1)
        client = Client(key, service, ttl_seconds, interval_seconds)
        self.clients.append(client)
        heapq.heappush(self._heartbeats, (phase, len(self.clients) - 1))
        return client

    def share(self, fraction: float, of: Sequence[Client] | None = None) -> list[Client]:
        """Return this share of the clients, drawn at random."""
        among = self.clients if of is None else of
        return self.chance.sample(among, round(fraction * len(among)))

    def cut(self, clients: Iterable[Client], begin: Time, end: Time) -> None:
        """Cut clients off from `begin` until `end`: one time for all, or one drawn for each."""
        for client in clients:
            self._cuts.setdefault(client.key, []).append((draw(begin), draw(end)))

    def reaches(self, client: Client, now: float) -> bool:
        """Return whether a heartbeat that is sent now arrives and is answered."""
        if self.is_down(now) or self.chance.random() < self.lost_share:
            return False
        return not any(begin <= now < end for begin, end in self._cuts.get(client.key, ()))

    def is_down(self, now: float) -> bool:
        """Return whether the registry can neither receive heartbeats nor sweep."""
        down_from, down_until = self.database_down
        if down_from <= now < down_until:
            return True
        if self.web_restarts is None:
            return False
        every_seconds, down_seconds = self.web_restarts
        return now % every_seconds < down_seconds

    def run(self, until: float) -> None:
        """Let time pass. A web process pulses and sweeps, except while it is down."""
        while self._sweep_at < until:
            self.send_heartbeats_until(self._sweep_at)
            if not self.is_down(self._sweep_at):
                self.registry.pulse(self._sweep_at)
                for _ in range(self.newcomers_per_sweep):
                    self.registry.register(self._sweep_at, 0, NEWCOMERS_TTL_SECONDS)
                self.registry.sweep(self._sweep_at)
            self._sweep_at += SWEEP_SECONDS

    def send_heartbeats_until(self, until: float) -> None:
        while self._heartbeats and self._heartbeats[0][0] <= until:
            at, place = heapq.heappop(self._heartbeats)
            client = self.clients[place]
            if at >= client.dies_at:
                continue
            arrived = self.reaches(client, at)
            if arrived:
                self.registry.heartbeat(at, client.key)
            wait = client.interval_seconds * self.chance.uniform(1 - self.jitter, 1 + self.jitter)
            heapq.heappush(self._heartbeats, (at + (wait if arrived or not self.repeats else REPEAT_SECONDS), place))
