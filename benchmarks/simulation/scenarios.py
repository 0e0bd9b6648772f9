"""Define the scenarios: what happens to fleets, and what is promised for them. Times are virtual seconds.

Unless a scenario says otherwise, clients do not repeat a lost heartbeat but send the next one a third of the TTL later,
which is the worst that the contract allows.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks.simulation.outcome import Outcome, measure
from benchmarks.simulation.world import BEGIN, Client, World

Services = Sequence[tuple[int, int]]
Run = Callable[[int], Outcome]

MINUTE = 60.0
TTL = 30
TEN_TTLS = 10 * TTL
LONE_SECONDS = 1.1 * TTL + 5
FOUR_MINUTES = 4 * MINUTE
# The longest suspension and the longest protection, and the time until a pause between suspensions lets a lease be due.
SUSPENSION_AND_PROTECTION = 3600 + 900 + 15 * MINUTE


def twenty_services(size: int = 1000, ttl_seconds: int = TTL) -> Services:
    return [(size // 20, ttl_seconds)] * 20


TEN_OF_FIVE = [(5, TTL)] * 10
MIXED = [(50, (5, 30, 300)[number % 3]) for number in range(20)]
SHORT_AMONG_LONG = {
    "30 of TTL 5 die, beside 15 and 10 of TTL 300": [(30, 5), (15, 300), (10, 300)],
    "11 of TTL 5 die, beside 5 and 5 of TTL 300": [(11, 5), (5, 300), (5, 300)],
    "12 of TTL 30 die, beside 4 and 4 of TTL 300": [(12, 30), (4, 300), (4, 300)],
    "30 of TTL 30 die, beside 5 and 5 of TTL 3,600": [(30, 30), (5, 3600), (5, 3600)],
}
ONE_LARGE = [(900, TTL), (50, TTL), (50, TTL)]
HOURLY = twenty_services(1000, 3600)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario and its promise.

    No live instance expires. The 99th percentile of the dead expire `within` seconds of their last heartbeat, and each
    is protected `shown` seconds after its death. A scenario that is not `covered` promises nothing.
    """

    name: str
    run: Run
    trials: int = 5
    within: float | None = None
    shown: float | None = None
    covered: bool = True
    # Too long for the test suite.
    long: bool = False

    def kept_by(self, found: Outcome) -> bool:
        if not self.covered:
            return True
        in_time = self.within is None or (found.still_listed == 0 and found.percentile(0.99) <= self.within)
        seen = self.shown is None or (bool(found.shown) and max(found.shown) <= self.shown)
        return found.false == 0 and in_time and seen


# --- Instances that are cut off -------------------------------------------------------------------------------------


def cut_off(services: Services, share: float, seconds: float = TEN_TTLS) -> Run:
    """Cut off a share of the clients, drawn at random."""

    def run(seed: int) -> Outcome:
        world = World(seed, services)
        world.cut(world.share(share), BEGIN, BEGIN + seconds)
        world.run(BEGIN + seconds + TEN_TTLS)
        return measure(world)

    return run


def cut_off_briefly(share: float, repeats: bool) -> Run:
    """Cut off a share of 1,000 for about one TTL: some are due just when heartbeats of the others arrive again."""

    def run(seed: int) -> Outcome:
        world = World(seed, twenty_services(), repeats=repeats)
        heals_at = BEGIN + world.chance.uniform(2 / 3, 3 / 2) * TTL
        world.cut(world.share(share), BEGIN, heals_at)
        world.run(heals_at + 2 * TTL)
        return measure(world)

    return run


def cut_off_services(services: Services, count: int) -> Run:
    """Cut off all clients of the first `count` services."""

    def run(seed: int) -> Outcome:
        world = World(seed, services)
        world.cut([client for client in world.clients if client.service < count], BEGIN, BEGIN + TEN_TTLS)
        world.run(BEGIN + 2 * TEN_TTLS)
        return measure(world)

    return run


def cut_off_twice(seed: int) -> Outcome:
    """Cut off 20 % for 10 TTLs, and 20 % others from the middle of that time."""
    world = World(seed, twenty_services())
    chosen = world.share(0.4)
    world.cut(chosen[:200], BEGIN, BEGIN + TEN_TTLS)
    world.cut(chosen[200:], BEGIN + TEN_TTLS / 2, BEGIN + 1.5 * TEN_TTLS)
    world.run(BEGIN + 2.5 * TEN_TTLS)
    return measure(world)


def cut_off_healing_one_by_one(share: float) -> Run:
    """Cut off a share at once, and let each reach the registry again at a random time within 10 TTLs."""

    def run(seed: int) -> Outcome:
        world = World(seed, twenty_services())
        world.cut(world.share(share), BEGIN, lambda: BEGIN + world.chance.uniform(0, TEN_TTLS))
        world.run(BEGIN + 2 * TEN_TTLS)
        return measure(world)

    return run


def cut_off_gradually(seconds: float) -> Run:
    """Cut off 60 % one by one over `seconds`, until 10 TTLs have passed."""

    def run(seed: int) -> Outcome:
        world = World(seed, twenty_services())
        world.cut(world.share(0.6), lambda: BEGIN + world.chance.uniform(0, seconds), BEGIN + TEN_TTLS)
        world.run(BEGIN + 2 * TEN_TTLS)
        return measure(world)

    return run


def take_database_down(seconds: float) -> Run:
    def run(seed: int) -> Outcome:
        world = World(seed, twenty_services())
        world.database_down = (BEGIN, BEGIN + seconds)
        world.run(BEGIN + seconds + TEN_TTLS)
        return measure(world)

    return run


def cut_off_between_restarts(share: float) -> Run:
    """Cut off a share of 1,000 while the lone web process is down for 8 s in every two minutes."""

    def run(seed: int) -> Outcome:
        world = World(seed, twenty_services())
        world.web_restarts = (2 * MINUTE, 8.0)
        world.cut(world.share(share), BEGIN, BEGIN + TEN_TTLS)
        world.run(BEGIN + 2 * TEN_TTLS)
        return measure(world)

    return run


def lose_heartbeats(repeats: bool) -> Run:
    """Lose one heartbeat in twenty for 20 minutes."""

    def run(seed: int) -> Outcome:
        world = World(seed, twenty_services(), repeats=repeats)
        world.lost_share = 0.05
        world.run(20 * MINUTE)
        return measure(world)

    return run


# --- Instances that die ---------------------------------------------------------------------------------------------


def die(services: Services, count: int, seconds: float, interval: float = 1 / 3, lockstep: bool = False) -> Run:
    """Let `count` clients die, drawn at random, and look `seconds` later."""

    def run(seed: int) -> Outcome:
        world = World(seed, services, interval=interval, lockstep=lockstep)
        return run_with_deaths(world, world.chance.sample(world.clients, count), seconds)

    return run


def run_with_deaths(world: World, dead: Sequence[Client], seconds: float) -> Outcome:
    for client in dead:
        client.dies_at = BEGIN + world.chance.uniform(0, 1)
    world.run(BEGIN + seconds)
    return measure(world, dead)


def die_between_restarts(seed: int) -> Outcome:
    """Let 60 % of 200 die while the lone web process is down for 8 s in every ten minutes."""
    world = World(seed, twenty_services(200))
    world.web_restarts = (10 * MINUTE, 8.0)
    return run_with_deaths(world, world.share(0.6), 60 * MINUTE)


def first_service_dies(services: Services) -> Run:
    """Let all of a service with a short TTL die: pauses between the heartbeats of the others start suspensions then."""

    def run(seed: int) -> Outcome:
        world = World(seed, services)
        dead = [client for client in world.clients if client.service == 0]
        return run_with_deaths(world, dead, SUSPENSION_AND_PROTECTION)

    return run


def die_slowly_after_many(seed: int) -> Outcome:
    """Let 170 of 1,000 die, and then ten a minute, whose delays are measured."""
    world = World(seed, twenty_services())
    dying = world.share(0.57)
    for client in dying[:170]:
        client.dies_at = BEGIN
    for number, client in enumerate(dying[170:]):
        client.dies_at = BEGIN + 200 + 6.0 * number
    world.run(BEGIN + 60 * MINUTE)
    return measure(world, dying[170:])


def die_beside_crash_loop(seed: int) -> Outcome:
    """Let one of 1,000 die while another service registers a new id every second that sends no heartbeat."""
    world = World(seed, twenty_services())
    world.newcomers_per_sweep = 2
    return run_with_deaths(world, world.clients[-1:], 2 * MINUTE)


def lose_two_hundred(of: int) -> Run:
    """Let 200 of a service of `of` die at once, and one of another service, whose delay is measured."""

    def run(seed: int) -> Outcome:
        world = World(seed, [(of, TTL), *[((1000 - of) // 10, TTL)] * 10])
        for client in world.clients[:200]:
            client.dies_at = BEGIN + world.chance.uniform(0, 1)
        return run_with_deaths(world, world.clients[-1:], 20 * MINUTE)

    return run


# --- All scenarios --------------------------------------------------------------------------------------------------


def scenarios() -> Iterator[Scenario]:
    yield from partitions()
    yield from partitions_of_uneven_fleets()
    yield from outages()
    yield from deaths()
    yield from deaths_of_short_ttls()
    yield from deaths_of_small_fleets()
    yield from known_limits()


def partitions() -> Iterator[Scenario]:
    for percent in (20, 60, 100):
        for size in (60, 200, 1000, 20_000):
            name = f"{percent} % of {size:,} cut off for 10 TTLs"
            trials = 1 if size > 1000 else 5
            yield Scenario(name, cut_off(twenty_services(size), percent / 100), trials, long=size > 200)
        name = f"{percent} % of 1,000 cut off, healing one by one"
        yield Scenario(name, cut_off_healing_one_by_one(percent / 100), long=percent != 60)
    for percent in (16, 20, 60):
        name = f"{percent} % of 1,000 cut off for 20 to 45 s, repeating"
        yield Scenario(name, cut_off_briefly(percent / 100, repeats=True), 20, long=percent != 20)
    yield Scenario("20 % of 50 in 10 services cut off", cut_off(TEN_OF_FIVE, 0.2), 20)
    yield Scenario("4 of 20 services of 50 cut off", cut_off_services(twenty_services(), 4))
    yield Scenario("20 % of 1,000 cut off, then 20 others", cut_off_twice)


def partitions_of_uneven_fleets() -> Iterator[Scenario]:
    for percent in (20, 60, 100):
        name = f"{percent} % of 1,000 of TTL 5, 30, 300 cut off"
        yield Scenario(name, cut_off(MIXED, percent / 100), 3, long=percent != 20)
        large = f"{percent} % of 900 + 50 + 50 cut off"
        yield Scenario(large, cut_off(ONE_LARGE, percent / 100), long=percent != 20)
    longer = "20 % of 1,000 of TTL 5, 30, 300 cut off for 12 min"
    yield Scenario(longer, cut_off(MIXED, 0.2, 12 * MINUTE), 3)
    yield Scenario("the 900 of 900 + 50 + 50 cut off", cut_off_services(ONE_LARGE, 1), long=True)
    yield Scenario("20 % of 1,000 of TTL 3,600 cut off for 30 min", cut_off(HOURLY, 0.2, 30 * MINUTE), 1, long=True)


def outages() -> Iterator[Scenario]:
    for minutes in (2, 20):
        seconds = minutes * MINUTE
        yield Scenario(
            f"load balancer down for {minutes} min", cut_off(twenty_services(), 1, seconds), long=minutes > 2
        )
        yield Scenario(
            f"load balancer down for {minutes} min, TTL 5, 30, 300", cut_off(MIXED, 1, seconds), long=minutes > 2
        )
    yield Scenario("database down for 5 min", take_database_down(5 * MINUTE))
    for percent in (20, 60):
        name = f"{percent} % of 1,000 cut off, web restarts every 2 min"
        yield Scenario(name, cut_off_between_restarts(percent / 100), long=percent != 20)
    yield Scenario("5 % of heartbeats lost for 20 min, repeating", lose_heartbeats(repeats=True), long=True)


def deaths() -> Iterator[Scenario]:
    yield Scenario("1 of 1,000 dies", die(twenty_services(), 1, 2 * MINUTE), 100, within=LONE_SECONDS)
    yield Scenario("1 of 20,000 dies", die(twenty_services(20_000), 1, MINUTE), 1, within=LONE_SECONDS, long=True)
    yield Scenario("1 of 1,000 of TTL 3,600 dies", die(HOURLY, 1, 5000), 2, within=1.1 * 3600 + 5, long=True)
    most = die(twenty_services(), 600, 20 * MINUTE)
    yield Scenario("600 of 1,000 die", most, within=20 * MINUTE, shown=MINUTE, long=True)
    within = 1.1 * TTL + 900 + 2 * MINUTE
    yield Scenario("60 % of 200 die, web restarts every 10 min", die_between_restarts, within=within)
    within = 1.1 * 3600 + 900 + MINUTE
    yield Scenario("600 of 1,000 of TTL 3,600 die", die(HOURLY, 600, 5200), 1, within=within, long=True)
    yield Scenario("1 dies, another service's ids send no heartbeat", die_beside_crash_loop, 20, within=TTL + 30)
    yield Scenario("1 dies, another service of 200 loses all", lose_two_hundred(200), within=TTL + 30, long=True)
    slow = "1 of 1,000 dies, heartbeats at 0.8 of the TTL"
    yield Scenario(slow, die(twenty_services(), 1, 20 * MINUTE, 0.8), 2, within=TTL + 30, long=True)
    together = die(twenty_services(), 1, 70 * MINUTE, 0.8, lockstep=True)
    yield Scenario(f"{slow}, at once", together, 2, within=65 * MINUTE, long=True)


def deaths_of_short_ttls() -> Iterator[Scenario]:
    for name, services in SHORT_AMONG_LONG.items():
        yield Scenario(name, first_service_dies(services), 20, within=SUSPENSION_AND_PROTECTION)


def deaths_of_small_fleets() -> Iterator[Scenario]:
    for size in (1, 2):
        name = f"a fleet of {size} dies"
        yield Scenario(name, die([(size, TTL)], size, 5 * MINUTE), 100, within=LONE_SECONDS)
    for size in (3, 5, 8):
        yield Scenario(f"a fleet of {size} dies", die([(size, TTL)], size, 5 * MINUTE), 100, within=FOUR_MINUTES)
    spread = [(3, TTL), (3, TTL), (2, TTL)]
    yield Scenario("a fleet of 8 in 3 services dies", die(spread, 8, 5 * MINUTE), 100, within=FOUR_MINUTES)
    yield Scenario("5 of a service of 8 die", die([(8, TTL)], 5, 5 * MINUTE), 100, within=FOUR_MINUTES)


def known_limits() -> Iterator[Scenario]:
    def uncovered(name: str, run: Run, trials: int = 5) -> Scenario:
        return Scenario(f"- {name}", run, trials, covered=False, long=True)

    yield uncovered("60 % of 1,000 cut off for 20 min", cut_off(twenty_services(), 0.6, 20 * MINUTE), 2)
    for seconds in (15, 30, 60, 120, 240):
        yield uncovered(f"60 % of 1,000 cut off over {seconds} s", cut_off_gradually(seconds))
    for percent in (5, 10, 15):
        yield uncovered(f"{percent} % of 1,000 cut off for 10 TTLs", cut_off(twenty_services(), percent / 100))
    for percent in (16, 20, 30, 60):
        name = f"{percent} % of 1,000 cut off for 20 to 45 s, not repeating"
        yield uncovered(name, cut_off_briefly(percent / 100, repeats=False), 20)
    yield uncovered("2 of 10 services of 5 cut off for 10 TTLs", cut_off_services(TEN_OF_FIVE, 2), 20)
    yield uncovered("1 of the 50 of 900 + 50 + 50 cut off", cut_off_services([(50, TTL), (900, TTL), (50, TTL)], 1))
    yield uncovered("a fleet of 10 cut off for 90 s", cut_off([(5, TTL)] * 2, 1, 90), 20)
    yield uncovered("a fleet of 10 cut off for 5 min", cut_off([(5, TTL)] * 2, 1), 20)
    yield uncovered("5 % of heartbeats lost for 20 min, not repeating", lose_heartbeats(repeats=False))
    yield uncovered("170 of 1,000 die, then 10 a minute", die_slowly_after_many, 2)
    for of in (299, 400):
        yield uncovered(f"1 dies, another service of {of} loses 200", lose_two_hundred(of), 2)
