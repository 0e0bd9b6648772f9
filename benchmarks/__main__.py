"""`make bench`: how fast the registry is on this machine, and where the time goes."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks import cpu
from benchmarks.floor import Bench, Floor
from benchmarks.load import Requests, Tally, drive
from benchmarks.requests import ARRAY, TEAMS, Writer, beat, populate
from benchmarks.running import Registry

WARM_UP_SECONDS = 0.5
IN_ONES, IN_ARRAYS = 0.2, 5.0


@dataclass(frozen=True)
class Measured:
    """One kind of request under load, and the processor's microseconds for each."""

    name: str
    tally: Tally
    web: float
    postgres: float
    client: float

    def line(self) -> str:
        times = f"{self.tally.percentile(0.5):9.2f} {self.tally.percentile(0.99):9.2f}"
        return f"{self.name:28} {self.tally.rate:9.0f} {times} {self.web:9.0f} {self.postgres:9.0f} {self.client:9.0f}"


HEADER = f"{'':28} {'a second':>9} {'p50 ms':>9} {'p99 ms':>9} {'web us':>9} {'pg us':>9} {'client us':>9}"


def kinds(writer: Writer, registry: Registry) -> list[tuple[str, int, Callable[[], Requests]]]:
    """Name, status that is awaited, and what makes the requests."""
    return [
        ("register (new)", 201, writer.registers),
        ("register (again)", 200, writer.registers_again),
        ("heartbeat", 200, writer.heartbeats),
        ("discovery (20 instances)", 200, writer.discoveries),
        ("discovery, unchanged (304)", 304, lambda: writer.unchanged(registry.ports)),
        (f"heartbeats, {ARRAY} an array", 200, writer.arrays),
    ]


def measure(registry: Registry, writer: Writer, options: argparse.Namespace, bench: Bench) -> Iterator[str]:
    """Lines: each kind, and right before and after it the floor it is held against, as the machine's speed changes."""
    for name, status, make in kinds(writer, registry):
        held = next((held for held in HELD if held.kind == name), None)
        before = bench.floor(held.floor) if held else None
        measured = loaded(registry, options, name, status, make)
        yield measured.line()
        if held and before:
            yield held.verdict(measured, before, bench.floor(held.floor))


def loaded(
    registry: Registry, options: argparse.Namespace, name: str, status: int, make: Callable[[], Requests]
) -> Measured:
    web = [process.pid for process in registry.webs]
    postgres = [registry.postgres.postmaster_pid or 0]
    registry.vacuum()
    drive(registry.ports, options.connections, WARM_UP_SECONDS, status, make)
    before = cpu.used(web), cpu.used(postgres), time.process_time()
    tally = drive(registry.ports, options.connections, options.seconds, status, make)
    after = cpu.used(web), cpu.used(postgres), time.process_time()
    return Measured(
        name, tally, *((end - begin) / len(tally.latencies) * 1e6 for begin, end in zip(before, after, strict=True))
    )


@dataclass(frozen=True)
class Held:
    """A kind of request, of so many items, that is to reach a share of the floor."""

    kind: str
    floor: str
    least: float
    items: int = 1

    def verdict(self, measured: Measured, *floors: Floor) -> str:
        mean = sum(floor.rate for floor in floors) / len(floors)
        ratio = measured.tally.rate * self.items / mean
        rates = " and ".join(f"{floor.rate:.0f}" for floor in floors)
        said = "holds" if ratio >= self.least else "MISSED"
        return f"{'':28} {ratio:9.2f} of `{self.floor}`, {rates} a second by pgbench; wanted {self.least:g}: {said}"


HELD = (
    Held("register (new)", "insert an instance", IN_ONES),
    Held("register (again)", "upsert an instance", IN_ONES),
    Held("heartbeat", "upsert a lease", IN_ONES),
    Held(f"heartbeats, {ARRAY} an array", "upsert a lease", IN_ARRAYS, ARRAY),
)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5, help="how long each kind of request is measured")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2, 4], help="values of WEB_THREADS")
    parser.add_argument("--connections", type=int, default=256, help="callers at once; a fleet has thousands")
    parser.add_argument("--clients", type=int, default=64, help="clients of pgbench, which more make no faster")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="web processes")
    parser.add_argument("--profile", action="store_true", help="time the layers of one heartbeat instead")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    with tempfile.TemporaryDirectory(prefix="registry-bench-") as place:
        directory = Path(place)
        directory.chmod(0o755)
        with Registry(directory, options.processes) as registry:
            run(registry, directory, options)


def run(registry: Registry, directory: Path, options: argparse.Namespace) -> None:
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {options.processes} web processes, ", end="")
    print(f"{options.connections} callers, {options.seconds:g} s each. Durable commits, loopback.")
    writer = Writer([registry.token(f"team-{number}") for number in range(TEAMS)])
    bench = Bench(registry.postgres, directory, options.clients, options.seconds)
    registry.web(options.threads[0])
    populate(registry.ports[0], writer)
    if options.profile:
        profile(registry, writer)
        return
    for threads in options.threads:
        registry.web(threads)
        print(f"\nWEB_THREADS={threads}\n{HEADER}")
        for line in measure(registry, writer, options, bench):
            print(line, flush=True)


def profile(registry: Registry, writer: Writer) -> None:
    """Time the layers in a process of their own, with the web processes ended."""
    registry.end_web()
    variables = {"BENCH_TOKEN": writer.tokens[0], "BENCH_BODY": json.dumps(beat(0))}
    subprocess.run([sys.executable, "-m", "benchmarks.layers"], env=registry.environment | variables, check=True)


if __name__ == "__main__":
    main()
