"""The memory of processes."""

import re
import resource
from pathlib import Path

from tests.server.registry import Registry


def read_resident_bytes(pid: int) -> int:
    """Return the resident memory of a process."""
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize()


def read_peak_bytes(registry: Registry) -> int:
    """Return the highest resident memory of the web process since `reset_peak`."""
    status = Path(f"/proc/{registry.web[0].pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found
    return int(found[1]) * 1024


def reset_peak(registry: Registry) -> int:
    """Measure the peak from now on, and return it."""
    Path(f"/proc/{registry.web[0].pid}/clear_refs").write_text("5")
    return read_peak_bytes(registry)
