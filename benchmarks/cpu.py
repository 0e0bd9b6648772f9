"""What processes have used of the processor, children included (proc_pid_stat(5))."""

import os
from collections.abc import Iterable
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def used(roots: Iterable[int]) -> float:
    """Seconds used by these processes, by those they have started, and by those of them that have ended."""
    stats = dict(filter(None, map(stat, Path("/proc").glob("[0-9]*"))))
    family, grown = set(roots), 0
    while len(family) != grown:
        grown = len(family)
        family |= {pid for pid, (parent, _ticks) in stats.items() if parent in family}
    return sum(stats[pid][1] for pid in family if pid in stats) / TICKS


def stat(directory: Path) -> tuple[int, tuple[int, int]] | None:
    """A process's id, its parent's, and its ticks: user and system, its own and those of children that have ended."""
    try:
        fields = (directory / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None  # it ended while we looked
    return int(directory.name), (int(fields[1]), sum(map(int, fields[11:15])))
