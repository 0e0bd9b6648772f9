"""`make bench`: measure the registry beside pgbench, an empty application, another checkout, or etcd."""

import argparse
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.baseline import PgBench
from benchmarks.comparison import compare
from benchmarks.peers import compare_with_etcd
from benchmarks.registry import EMPTY_APPLICATION, ROOT, Measurement, Registry
from benchmarks.requests import Fleet, RequestKind, register_fleet

WARM_UP_SECONDS = 0.5
HEADER = (
    f"{'':28} {'per s':>7} {'p50 ms':>7} {'p99 ms':>7}  {'web us':>7} {'(empty)':>8}"
    f"  {'pg us':>7} {'(pgbench)':>9} {'rate':>6}  {'client us':>9}"
)


def measure_all(registry: Registry, pgbench: PgBench, connections: int, options: argparse.Namespace) -> Iterator[str]:
    """Yield a line for each kind of request. pgbench runs right before and after the kind that it is the baseline of,
    as the speed of a machine changes by the minute."""
    empty = measure_empty(registry, connections, options)
    yield format_line("an empty application", empty, 1, "")
    for kind in registry.kinds():
        before = pgbench.measure(kind.baseline) if kind.baseline else None
        registry.vacuum()
        measured = measure_warm(registry, kind, connections, options.seconds)
        after = pgbench.measure(kind.baseline) if kind.baseline else None
        yield format_line(
            kind.name, measured, measured.web_us / empty.web_us, format_shares(kind, measured, before, after)
        )


def measure_empty(registry: Registry, connections: int, options: argparse.Namespace) -> Measurement:
    """Measure an application that does nothing, with the requests of heartbeats, under the same server."""
    processes = len(registry.ports)
    registry.start_web(processes, options.threads, EMPTY_APPLICATION)
    heartbeat = next(kind for kind in registry.kinds() if kind.name == "heartbeat")
    measured = measure_warm(registry, heartbeat, connections, options.seconds)
    registry.start_web(processes, options.threads)
    return measured


def measure_warm(registry: Registry, kind: RequestKind, connections: int, seconds: float) -> Measurement:
    registry.measure(kind, connections, WARM_UP_SECONDS)
    return registry.measure(kind, connections, seconds)


def format_shares(
    kind: RequestKind,
    measured: Measurement,
    before: tuple[float, float] | None,
    after: tuple[float, float] | None,
) -> str:
    """Format PostgreSQL's CPU time and the rate as multiples of pgbench's, item by item."""
    if before is None or after is None:
        return ""
    rate, microseconds = ((first + second) / 2 for first, second in zip(before, after, strict=True))
    cpu = measured.postgres_us / kind.items / microseconds
    return f"{cpu:9.2f} {measured.load.rate * kind.items / rate:6.2f}"


def format_line(name: str, measured: Measurement, multiple: float, shares: str) -> str:
    load = measured.load
    return (
        f"{name:28} {load.rate:7.0f} {load.percentile(0.5):7.2f} {load.percentile(0.99):7.2f}"
        f"  {measured.web_us:7.0f} {multiple:8.1f}  {measured.postgres_us:7.0f} {shares:16}  {measured.client_us:9.0f}"
    )


def measure_checkout(checkout: Path, directory: Path, options: argparse.Namespace) -> None:
    with Registry(directory / "registry", Fleet(), checkout) as registry:
        registry.start_web(1, options.threads)
        register_fleet(registry.ports[0], registry.requests)
        pgbench = PgBench(registry.postgres, directory, options.clients, options.seconds)
        print("(empty): as a multiple of the empty application; (pgbench), rate: of pgbench's CPU time and rate.")
        for processes in options.processes:
            registry.start_web(processes, options.threads)
            for connections in options.connections:
                print(f"\n{processes} web processes, {connections} callers\n{HEADER}")
                for line in measure_all(registry, pgbench, connections, options):
                    print(line, flush=True)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--checkout", type=Path, default=ROOT, help="the code that is measured; this one by default")
    parser.add_argument("--before", type=Path, help="compare this checkout with --checkout, instead of with pgbench")
    parser.add_argument("--peers", choices=["etcd"], help="compare with this registry, instead of with pgbench")
    parser.add_argument("--seconds", type=float, default=4, help="how long each kind of request is measured at once")
    parser.add_argument("--rounds", type=int, default=5, help="of a comparison, for each kind of request")
    parser.add_argument("--threads", type=int, default=2, help="WEB_THREADS")
    parser.add_argument(
        "--connections", type=int, nargs="+", default=[32, 256], help="callers at once; a comparison uses the last"
    )
    parser.add_argument("--clients", type=int, default=64, help="clients of pgbench; more make it no faster")
    parser.add_argument(
        "--processes", type=int, nargs="+", default=[1, 2], help="web processes; a comparison uses the last"
    )
    return parser.parse_args()


def main() -> None:
    options = parse_arguments()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; ", end="")
    print(f"WEB_THREADS={options.threads}, {options.seconds:g} s each. Durable commits, loopback.", flush=True)
    with tempfile.TemporaryDirectory(prefix="registry-bench-") as place:
        directory = Path(place)
        directory.chmod(0o755)
        if options.before:
            compare(options.before, options.checkout, directory, options)
        elif options.peers:
            compare_with_etcd(options.checkout, directory, options)
        else:
            measure_checkout(options.checkout, directory, options)


if __name__ == "__main__":
    main()
