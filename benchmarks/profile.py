"""`make profile`: where the web process spends its time, line by line, while it answers one kind of request.

py-spy samples the process from outside (https://github.com/benfred/py-spy), so that it runs as in production. It may
only do so as root or as the parent of the process.
"""

import argparse
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from benchmarks.registry import ROOT, Registry
from benchmarks.requests import Fleet, RequestKind, register_fleet

CALLS = {
    "discover": "discovery (",
    "unchanged": "discovery, unchanged",
    "heartbeat": "heartbeat",
    "array": "heartbeats,",
    "register": "register (again)",
    "register-new": "register (new)",
    "list": "list (",
}
SAMPLES_PER_SECOND = 500
SHOWN_LINES = 40
# Lines of the frame around everything have all of the time.
HIDDEN = ("<module>", "_run_code", "_bootstrap", "uvicorn/", "asyncio/", "concurrent/futures/")


def find_kind(registry: Registry, call: str) -> RequestKind:
    return next(kind for kind in registry.kinds() if kind.name.startswith(CALLS[call]))


def record_samples(registry: Registry, kind: RequestKind, connections: int, seconds: float, output: Path) -> None:
    """Write the samples to `output`, a line for each stack."""
    options = ("--rate", str(SAMPLES_PER_SECOND), "--duration", str(round(seconds)), "--nonblocking", "--gil")
    py_spy = Path(sys.executable).with_name("py-spy")
    recording = subprocess.Popen(
        [py_spy, "record", "--pid", str(registry.webs[0].pid), *options, "--format", "raw", "--output", output],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    registry.measure(kind, connections, seconds + 1)
    _, errors = recording.communicate(timeout=60)
    if recording.returncode:
        raise SystemExit(f"py-spy failed: {errors.decode()[-400:]}")


def count_lines(samples: str) -> tuple[int, Counter[str], Counter[str]]:
    """Return the number of samples, and by line those that it was on top of and those that it took part in."""
    total, own, inclusive = 0, Counter[str](), Counter[str]()
    for sample in samples.splitlines():
        stack, _, count = sample.rpartition(" ")
        frames = stack.split(";")
        total += int(count)
        own[frames[-1]] += int(count)
        for frame in set(frames):
            inclusive[frame] += int(count)
    return total, own, inclusive


def print_profile(samples: str) -> None:
    total, own, inclusive = count_lines(samples)
    print(f"{total} samples\n{'all':>6} {'alone':>6}  line")
    shown = [frame for frame, _count in inclusive.most_common() if not any(part in frame for part in HIDDEN)]
    for frame in shown[:SHOWN_LINES]:
        print(f"{inclusive[frame] / total:6.1%} {own[frame] / total:6.1%}  {frame}")
    print("\nThe lines that were on top most often:")
    for frame, count in own.most_common(SHOWN_LINES // 2):
        print(f"{inclusive[frame] / total:6.1%} {count / total:6.1%}  {frame}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=__doc__)
    parser.add_argument("call", nargs="?", default="heartbeat", choices=CALLS)
    parser.add_argument("--checkout", type=Path, default=ROOT, help="the code that is profiled; this one by default")
    parser.add_argument("--connections", type=int, default=32, help="callers at once")
    parser.add_argument("--seconds", type=float, default=10, help="how long samples are taken")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="registry-profile-") as place:
        directory = Path(place)
        directory.chmod(0o755)
        with Registry(directory / "registry", Fleet(10_000), options.checkout) as registry:
            registry.start_web(1, threads=2)
            register_fleet(registry.ports[0], registry.requests)
            kind = find_kind(registry, options.call)
            registry.measure(kind, options.connections, 1.0)
            samples = directory / "samples"
            record_samples(registry, kind, options.connections, options.seconds, samples)
            print(f"{kind.name}, {options.connections} callers, one web process")
            print_profile(samples.read_text())


if __name__ == "__main__":
    main()
