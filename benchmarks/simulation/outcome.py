"""What came of one trial, and of several."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.simulation.world import Client, World


@dataclass(slots=True)
class Outcome:
    """`false` expiries are of clients that lived. `delays` are the seconds from the last heartbeat of a dead one to its
    expiry, `shown` those from its death until it was shown as protected; `left` of the dead are still listed."""

    instances: int = 0
    false: int = 0
    delays: list[float] = field(default_factory=list)
    shown: list[float] = field(default_factory=list)
    left: int = 0

    def percentile(self, share: float) -> float:
        """The smallest delay that `share` of all do not pass; 0 when nobody has died."""
        ordered = sorted(self.delays)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0


def outcome(world: World, dead: Sequence[Client] = ()) -> Outcome:
    """Of a world whose time is over. Only of `dead` are delays told; that no other has died is for the caller."""
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
    found.left = sum(world.registry.leases[key].expired_at is None for key in watched)
    return found


def merged(outcomes: Sequence[Outcome]) -> Outcome:
    """Of several trials, taken together."""
    together = Outcome()
    for each in outcomes:
        together.instances += each.instances
        together.false += each.false
        together.delays += each.delays
        together.shown += each.shown
        together.left += each.left
    return together
