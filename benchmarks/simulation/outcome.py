"""Measure the outcome of trials: false expiries, and the time until dead instances expire."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.simulation.world import Client, World


@dataclass(slots=True)
class Outcome:
    """The result of one or several trials.

    `false` counts expiries of live clients. `delays` are the seconds from the last heartbeat of a dead client to its
    expiry, `shown` those from its death until it was protected. `still_listed` of the dead have not expired.
    """

    instances: int = 0
    false: int = 0
    delays: list[float] = field(default_factory=list)
    shown: list[float] = field(default_factory=list)
    still_listed: int = 0

    def percentile(self, share: float) -> float:
        """Return the smallest delay that `share` of the dead do not exceed, or 0 when no client has died."""
        ordered = sorted(self.delays)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0


def measure(world: World, dead: Sequence[Client] = ()) -> Outcome:
    """Measure a world whose time is over. Delays are those of the clients in `dead` only."""
    watched = {client.key for client in dead}
    found = Outcome(instances=len(world.clients))
    dies_at = {client.key: client.dies_at for client in world.clients}
    for at, kind, key, _ in world.registry.events:
        if kind == "expired" and at < dies_at.get(key, 0.0):
            found.false += 1
        elif kind == "expired" and key in watched:
            found.delays.append(at - world.registry.leases[key].heartbeat_at)
        elif kind == "protected" and key in watched and at >= dies_at[key]:
            found.shown.append(at - dies_at[key])
    found.still_listed = sum(world.registry.leases[key].expired_at is None for key in watched)
    return found


def merge(outcomes: Sequence[Outcome]) -> Outcome:
    """Add up the outcomes of several trials."""
    together = Outcome()
    for each in outcomes:
        together.instances += each.instances
        together.false += each.false
        together.delays += each.delays
        together.shown += each.shown
        together.still_listed += each.still_listed
    return together
