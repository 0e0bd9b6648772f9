"""Compare the registry with etcd in one run: rounds alternate, as the speed of a machine changes by the minute."""

import argparse
import statistics
from pathlib import Path

from benchmarks.client import LoadResult
from benchmarks.etcd import Etcd
from benchmarks.registry import Registry
from benchmarks.requests import Fleet, RequestKind, register_fleet

# etcd needs a request for each instance.
FLEET = Fleet(10_000)
WARM_UP_SECONDS = 0.5
HEADER = f"{'':28} {'CPU us':>8} {'etcd':>8} {'ratio':>6}  {'per s':>8} {'etcd':>8}  {'p99 ms':>8} {'etcd':>8}"


def compare_with_etcd(checkout: Path, directory: Path, options: argparse.Namespace) -> None:
    """Print a line for each kind of request.

    The registry's CPU time is that of its web processes and of PostgreSQL.
    """
    with Registry(directory / "registry", FLEET, checkout) as registry, Etcd(directory / "etcd", FLEET) as etcd:
        registry.start_web(options.processes[0], options.threads)
        register_fleet(registry.ports[0], registry.requests)
        print(f"{FLEET.instances} instances, {options.connections[0]} callers, {options.rounds} rounds; medians.")
        print(HEADER)
        theirs = {kind.name: kind for kind in etcd.kinds()}
        for kind in registry.kinds():
            registry.vacuum()
            print(compare_kind(registry, kind, etcd, theirs.get(kind.name), options), flush=True)


def compare_kind(
    registry: Registry, kind: RequestKind, etcd: Etcd, their_kind: RequestKind | None, options: argparse.Namespace
) -> str:
    connections = options.connections[0]
    registry.measure(kind, connections, WARM_UP_SECONDS)
    ours: list[tuple[LoadResult, float]] = []
    theirs: list[tuple[LoadResult, float]] = []
    for _ in range(options.rounds):
        measured = registry.measure(kind, connections, options.seconds)
        ours.append((measured.load, measured.web_us + measured.postgres_us))
        if their_kind:
            theirs.append(etcd.measure(their_kind, connections, options.seconds))
    return format_line(kind.name, ours, theirs)


def format_line(name: str, ours: list[tuple[LoadResult, float]], theirs: list[tuple[LoadResult, float]]) -> str:
    cpu, rate, p99 = summarize(ours)
    if not theirs:
        return f"{name:28} {cpu:8.0f} {'':8} {'':6}  {rate:8.0f} {'':8}  {p99:8.1f}"
    their_cpu, their_rate, their_p99 = summarize(theirs)
    return (
        f"{name:28} {cpu:8.0f} {their_cpu:8.0f} {cpu / their_cpu:6.2f}  {rate:8.0f} {their_rate:8.0f}"
        f"  {p99:8.1f} {their_p99:8.1f}"
    )


def summarize(rounds: list[tuple[LoadResult, float]]) -> tuple[float, float, float]:
    """Return the medians of CPU microseconds and rate, and p99 over all rounds, in milliseconds."""
    loads = [load for load, _cpu in rounds]
    return (
        statistics.median(cpu for _load, cpu in rounds),
        statistics.median(load.rate for load in loads),
        sum(loads, LoadResult()).percentile(0.99),
    )
