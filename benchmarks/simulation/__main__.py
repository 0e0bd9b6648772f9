"""Run all scenarios and print a table: `python -m benchmarks.simulation`. Exit code 1: a promise is broken."""

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor

from benchmarks.simulation.outcome import Outcome, merge
from benchmarks.simulation.scenarios import Scenario, scenarios

INTRODUCTION = """\
Clients send a heartbeat every third of their TTL (30 s, unless it is named), and repeat a lost one only where the name
includes it. `false` counts expiries of live instances. The other columns are seconds from the last heartbeat of a dead
instance to its expiry: median, 99th percentile, maximum. Rows that begin with - are outside of what is promised.
"""
HEAD = f"{'':<58} {'trials':>6} {'instances':>9} {'false':>6} {'p50':>6} {'p99':>6} {'max':>6}"


def run_trials(name: str, seed: int) -> Outcome:
    """Run all trials of one scenario, each with the next seed. Runs in another process, so it takes a name."""
    scenario = find_scenario(name)
    return merge([scenario.run(seed + trial) for trial in range(scenario.trials)])


def find_scenario(name: str) -> Scenario:
    return next(scenario for scenario in scenarios() if scenario.name == name)


def format_row(scenario: Scenario, found: Outcome) -> str:
    delays = [f"{found.percentile(share):.0f}" if found.delays else "" for share in (0.5, 0.99, 1.0)]
    columns = f"{scenario.trials:>6} {found.instances:>9,} {found.false:>6,} " + " ".join(f"{d:>6}" for d in delays)
    left = f"  {found.still_listed} still listed" if found.still_listed else ""
    return f"{scenario.name:<58} {columns}{left}{'' if scenario.kept_by(found) else '  BROKEN'}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.simulation")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="scenarios with this in their name")
    arguments = parser.parse_args()
    chosen = [scenario for scenario in scenarios() if arguments.only in scenario.name]
    print(f"{INTRODUCTION}\n{HEAD}", flush=True)
    broken = 0
    with ProcessPoolExecutor() as processes:
        results = [processes.submit(run_trials, scenario.name, arguments.seed) for scenario in chosen]
        for scenario, result in zip(chosen, results, strict=True):
            print(format_row(scenario, result.result()), flush=True)
            broken += not scenario.kept_by(result.result())
    print(f"\n{broken} of {len(chosen)} broken.")
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
