"""`make bench`: measure the registry on this machine against pgbench, or two checkouts of it against each other."""

import argparse
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.baseline import PgBench
from benchmarks.comparison import compare
from benchmarks.registry import ROOT, Measurement, Registry
from benchmarks.requests import ARRAY_ITEMS, register_population

WARM_UP_SECONDS = 0.5
HEADER = f"{'':28} {'per s':>9} {'p50 ms':>9} {'p99 ms':>9} {'web us':>9} {'pg us':>9} {'client us':>9}"


@dataclass(frozen=True)
class Target:
    """The share of pgbench's rate that a kind of request has to reach, counted in items."""

    baseline: str
    share: float
    items: int = 1

    def format_verdict(self, measured: Measurement, rates: tuple[float, float]) -> str:
        ratio = measured.load.rate * self.items / (sum(rates) / len(rates))
        verdict = "reached" if ratio >= self.share else "MISSED"
        measured_rates = " and ".join(f"{rate:.0f}" for rate in rates)
        return f"{'':28} {ratio:9.2f} of pgbench's {measured_rates} ({self.baseline}); target {self.share:g}: {verdict}"


SINGLE, ARRAY = 0.2, 5.0
TARGETS = {
    "register (new)": Target("insert an instance", SINGLE),
    "register (again)": Target("upsert an instance", SINGLE),
    "heartbeat": Target("upsert a lease", SINGLE),
    f"heartbeats, {ARRAY_ITEMS} per array": Target("upsert a lease", ARRAY, ARRAY_ITEMS),
}


def measure_all(registry: Registry, pgbench: PgBench, options: argparse.Namespace) -> Iterator[str]:
    """Yield a line for each kind, and one for its target. pgbench runs right before and after the kind that it is the
    baseline of, as the speed of a machine changes by the minute."""
    for kind in registry.kinds():
        target = TARGETS.get(kind.name)
        before = pgbench.measure_rate(target.baseline) if target else 0.0
        registry.vacuum()
        registry.measure(kind, options.connections, WARM_UP_SECONDS)
        measured = registry.measure(kind, options.connections, options.seconds)
        yield format_line(kind.name, measured)
        if target:
            yield target.format_verdict(measured, (before, pgbench.measure_rate(target.baseline)))


def format_line(name: str, measured: Measurement) -> str:
    load = measured.load
    latencies = f"{load.percentile(0.5):9.2f} {load.percentile(0.99):9.2f}"
    cpu = f"{measured.web_us:9.0f} {measured.postgres_us:9.0f} {measured.client_us:9.0f}"
    return f"{name:28} {load.rate:9.0f} {latencies} {cpu}"


def measure_checkout(checkout: Path, directory: Path, options: argparse.Namespace) -> None:
    with Registry(directory / "registry", options.processes, checkout) as registry:
        registry.start_web(options.threads[0])
        register_population(registry.ports[0], registry.requests)
        pgbench = PgBench(registry.postgres, directory, options.clients, options.seconds)
        for threads in options.threads:
            registry.start_web(threads)
            print(f"\nWEB_THREADS={threads}\n{HEADER}")
            for line in measure_all(registry, pgbench, options):
                print(line, flush=True)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--checkout", type=Path, default=ROOT, help="the code that is measured; this one by default")
    parser.add_argument("--before", type=Path, help="compare this checkout with --checkout, instead of with pgbench")
    parser.add_argument("--seconds", type=float, default=4, help="how long each kind of request is measured at once")
    parser.add_argument("--rounds", type=int, default=6, help="of a comparison, for each kind of request")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2, 4], help="WEB_THREADS; a comparison uses one")
    parser.add_argument("--connections", type=int, default=256, help="callers at once; a fleet has thousands")
    parser.add_argument("--clients", type=int, default=64, help="clients of pgbench; more make it no faster")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="web processes")
    return parser.parse_args()


def main() -> None:
    options = parse_arguments()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {options.processes} web processes, ", end="")
    print(f"{options.connections} callers, {options.seconds:g} s each. Durable commits, loopback.", flush=True)
    with tempfile.TemporaryDirectory(prefix="registry-bench-") as place:
        directory = Path(place)
        directory.chmod(0o755)
        if options.before:
            compare(options.before, options.checkout, directory, options)
        else:
            measure_checkout(options.checkout, directory, options)


if __name__ == "__main__":
    main()
