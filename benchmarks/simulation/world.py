"""The clients and what stands between them and the registry."""

import heapq
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from benchmarks.simulation.registry import Registry
from service_registry.expiry.protection import Limits

SWEEP_SECONDS = 2.0
# Clients beat every third of their TTL, give or take a tenth of that.
BEATS_A_TTL = 3
JITTER = 0.1
REPEAT_SECONDS = 1.0
NEWCOMERS_TTL_SECONDS = 30
# When the first thing happens to a fleet that has beaten long enough to be at its own phases.
BEGIN = 100.0


@dataclass(slots=True)
class Client:
    """An instance. It lives until `dies_at`, and is cut off when the world says so."""

    key: int
    service: int
    ttl_seconds: int
    interval_seconds: float
    dies_at: float = float("inf")


Moment = float | Callable[[], float]


def moment(given: Moment) -> float:
    return given() if callable(given) else given


class World:
    """A fleet, its registry and virtual time. Nobody is dead or cut off at first."""

    def __init__(
        self,
        seed: int,
        services: Iterable[tuple[int, int]],
        *,
        interval: float = 1 / BEATS_A_TTL,
        lockstep: bool = False,
        repeats: bool = False,
        limits: Limits | None = None,
    ) -> None:
        """
        Args:
            seed: of all that is random.
            services: size and TTL in seconds of each.
            interval: between two beats, as a share of the TTL.
            lockstep: whether all beat at the same moments, without jitter.
            repeats: whether a client repeats a beat that was lost after a second; else it waits for its next.
            limits: those of the rules.
        """
        self.chance = random.Random(seed)
        self.registry = Registry(limits or Limits())
        self.jitter = 0.0 if lockstep else JITTER
        self.repeats = repeats
        self.database_down: tuple[float, float] = (0.0, 0.0)
        # The lone web process restarts: every so many seconds it is down for so many.
        self.web_restarts: tuple[float, float] | None = None
        self.lost_share = 0.0
        # Ids of the first service that register and never beat.
        self.newcomers_a_sweep = 0
        self.clients: list[Client] = []
        self._cuts: dict[int, list[tuple[float, float]]] = {}
        self._beats: list[tuple[float, int]] = []
        self._sweep_at = 0.0
        for service, (size, ttl_seconds) in enumerate(services):
            for _ in range(size):
                self.add(service, ttl_seconds, interval * ttl_seconds, lockstep)

    def add(self, service: int, ttl_seconds: int, interval_seconds: float, lockstep: bool = False) -> Client:
        """A client that has beaten already, at a moment of its own."""
        phase = 0.0 if lockstep else self.chance.uniform(0, interval_seconds)
        key = self.registry.register(phase - interval_seconds, service, ttl_seconds, beats=1)
        client = Client(key, service, ttl_seconds, interval_seconds)
        self.clients.append(client)
        heapq.heappush(self._beats, (phase, len(self.clients) - 1))
        return client

    def share(self, fraction: float, of: Sequence[Client] | None = None) -> list[Client]:
        """So many of the clients, drawn at random."""
        among = self.clients if of is None else of
        return self.chance.sample(among, round(fraction * len(among)))

    def cut(self, clients: Iterable[Client], begin: Moment, end: Moment) -> None:
        """Let these be cut off from `begin` until `end`: a moment for all, or one that is drawn for each."""
        for client in clients:
            self._cuts.setdefault(client.key, []).append((moment(begin), moment(end)))

    def reaches(self, client: Client, now: float) -> bool:
        """Whether a beat that is sent now arrives and is answered."""
        if self.is_down(now) or self.chance.random() < self.lost_share:
            return False
        return not any(begin <= now < end for begin, end in self._cuts.get(client.key, ()))

    def is_down(self, now: float) -> bool:
        """Whether nothing can be heard, nor anybody sweep."""
        down_from, down_until = self.database_down
        if down_from <= now < down_until:
            return True
        if self.web_restarts is None:
            return False
        every_seconds, down_seconds = self.web_restarts
        return now % every_seconds < down_seconds

    def run(self, until: float) -> None:
        """Let time pass. A web process pulses all the while, and somebody sweeps, except while that is down."""
        while self._sweep_at < until:
            self.beat_until(self._sweep_at)
            if not self.is_down(self._sweep_at):
                self.registry.pulse(self._sweep_at)
                for _ in range(self.newcomers_a_sweep):
                    self.registry.register(self._sweep_at, 0, NEWCOMERS_TTL_SECONDS)
                self.registry.sweep(self._sweep_at)
            self._sweep_at += SWEEP_SECONDS

    def beat_until(self, until: float) -> None:
        while self._beats and self._beats[0][0] <= until:
            at, place = heapq.heappop(self._beats)
            client = self.clients[place]
            if at >= client.dies_at:
                continue
            heard = self.reaches(client, at)
            if heard:
                self.registry.heartbeat(at, client.key)
            wait = client.interval_seconds * self.chance.uniform(1 - self.jitter, 1 + self.jitter)
            heapq.heappush(self._beats, (at + (wait if heard or not self.repeats else REPEAT_SECONDS), place))
