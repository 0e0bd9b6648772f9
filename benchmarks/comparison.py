"""Compare two checkouts in one run: rounds alternate between them, as the speed of a machine changes by the minute."""

import argparse
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.client import LoadResult
from benchmarks.registry import Measurement, Registry
from benchmarks.requests import Fleet, RequestKind, register_fleet

HEADER = (
    f"{'':28} {'before/s':>9} {'after/s':>9} {'ratio':>6} {'(rounds)':>13} {'p99 ms':>15} {'web us':>13} {'pg us':>13}"
)


class Round(NamedTuple):
    """One measurement of each checkout, one right after the other."""

    before: Measurement
    after: Measurement

    @property
    def ratio(self) -> float:
        return self.after.load.rate / self.before.load.rate


def compare(before: Path, after: Path, directory: Path, options: argparse.Namespace) -> None:
    """Run both checkouts side by side, and print a line for each kind of request."""
    with (
        Registry(directory / "before", Fleet(), before) as old,
        Registry(directory / "after", Fleet(), after) as new,
    ):
        for registry in (old, new):
            registry.start_web(options.processes[-1], options.threads)
            register_fleet(registry.ports[0], registry.requests)
        print(f"before: {before}, after: {after}; {options.rounds} rounds, {options.connections[-1]} callers")
        print("A ratio above 1 means that the second one is faster; the CPU time is that of one request.")
        print(HEADER)
        for kind_of_old, kind_of_new in zip(old.kinds(), new.kinds(), strict=True):
            print(format_line(kind_of_old.name, list(measure(old, kind_of_old, new, kind_of_new, options))), flush=True)


def measure(
    old: Registry, kind_of_old: RequestKind, new: Registry, kind_of_new: RequestKind, options: argparse.Namespace
) -> Iterator[Round]:
    """Yield the rounds. Each one begins with the checkout that the round before ended with.

    A round of a second goes first and is not counted: caches, plans and connections are cold then.
    """
    for registry, kind in ((old, kind_of_old), (new, kind_of_new)):
        registry.vacuum()
        registry.measure(kind, options.connections[-1], 1.0)
    for number in range(options.rounds):
        if number % 2 == 0:
            first = old.measure(kind_of_old, options.connections[-1], options.seconds)
            yield Round(first, new.measure(kind_of_new, options.connections[-1], options.seconds))
        else:
            first = new.measure(kind_of_new, options.connections[-1], options.seconds)
            yield Round(old.measure(kind_of_old, options.connections[-1], options.seconds), first)


def format_line(name: str, rounds: list[Round]) -> str:
    """Format rates over all rounds, the ratio's median and range, and p99 and CPU time by request: before, after."""
    sides = list(zip(*rounds, strict=True))
    loads = [sum((each.load for each in side), LoadResult()) for side in sides]
    ratios = [each.ratio for each in rounds]
    return (
        f"{name:28} {loads[0].rate:9.0f} {loads[1].rate:9.0f} {statistics.median(ratios):6.2f}"
        f" {f'({min(ratios):.2f}-{max(ratios):.2f})':>13}"
        f" {format_pair(load.percentile(0.99) for load in loads):>15}"
        f" {format_pair(statistics.mean(each.web_us for each in side) for side in sides):>13}"
        f" {format_pair(statistics.mean(each.postgres_us for each in side) for side in sides):>13}"
    )


def format_pair(values: Iterator[float]) -> str:
    return ", ".join(f"{value:.0f}" for value in values)
