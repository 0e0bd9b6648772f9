"""Resident memory of processes, from procfs (proc_pid_statm(5))."""

import resource
from pathlib import Path


def read_resident_bytes(pid: int) -> int:
    """Return the resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
