"""CPU time of processes and their children, from procfs (proc_pid_stat(5))."""

import os
from collections.abc import Iterable
from pathlib import Path

CLOCK_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def read_cpu_seconds(roots: Iterable[int]) -> float:
    """Return the CPU time of these processes and all their descendants, ended ones included."""
    stats = dict(filter(None, map(read_stat, Path("/proc").glob("[0-9]*"))))
    family, size = set(roots), 0
    while len(family) != size:
        size = len(family)
        family |= {pid for pid, (parent, _ticks) in stats.items() if parent in family}
    return sum(stats[pid][1] for pid in family if pid in stats) / CLOCK_TICKS_PER_SECOND


def read_stat(directory: Path) -> tuple[int, tuple[int, int]] | None:
    """Return a process's id, its parent's id, and its ticks: user and system, its own and its ended children's."""
    try:
        fields = (directory / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None  # it ended since the directory was listed
    return int(directory.name), (int(fields[1]), sum(map(int, fields[11:15])))
