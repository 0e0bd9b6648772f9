"""`python -m benchmarks.simulation`: a table of what becomes of fleets. Exit code 1: a promise is broken."""

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor

from benchmarks.simulation.outcome import Outcome, merged
from benchmarks.simulation.scenarios import Scenario, scenarios

SAID = """\
Clients beat every third of their TTL (30 s, unless it is named) and do not repeat a lost beat, unless that is said.
`false` are expiries of instances that live; then the seconds from the last heartbeat of a dead instance until it is off
the list: median, 99th percentile, most. Rows that begin with - are beyond what is promised.
"""
HEAD = f"{'':<58} {'trials':>6} {'instances':>9} {'false':>6} {'p50':>6} {'p99':>6} {'most':>6}"


def tried(name: str, seed: int) -> Outcome:
    """All trials of one scenario, in a process of its own: the seed of each is the one before and 1."""
    scenario = named(name)
    return merged([scenario.run(seed + trial) for trial in range(scenario.trials)])


def named(name: str) -> Scenario:
    return next(scenario for scenario in scenarios() if scenario.name == name)


def row(scenario: Scenario, found: Outcome) -> str:
    delays = [f"{found.percentile(share):.0f}" if found.delays else "" for share in (0.5, 0.99, 1.0)]
    columns = f"{scenario.trials:>6} {found.instances:>9,} {found.false:>6,} " + " ".join(f"{d:>6}" for d in delays)
    left = f"  {found.left} still listed" if found.left else ""
    return f"{scenario.name:<58} {columns}{left}{'' if scenario.kept_by(found) else '  BROKEN'}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.simulation")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="scenarios with this in their name")
    arguments = parser.parse_args()
    chosen = [scenario for scenario in scenarios() if arguments.only in scenario.name]
    print(f"{SAID}\n{HEAD}", flush=True)
    broken = 0
    with ProcessPoolExecutor() as processes:
        results = [processes.submit(tried, scenario.name, arguments.seed) for scenario in chosen]
        for scenario, result in zip(chosen, results, strict=True):
            print(row(scenario, result.result()), flush=True)
            broken += not scenario.kept_by(result.result())
    print(f"\n{broken} of {len(chosen)} broken.")
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
