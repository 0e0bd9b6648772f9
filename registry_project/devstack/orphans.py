"""Stop the PostgreSQL server that a killed supervisor has left running."""

import contextlib
import os
import signal
import time
from pathlib import Path

from registry_project.devstack import DevstackError

# A fast shutdown, then an immediate one, then a kill; each with its timeout in seconds.
STEPS = ((signal.SIGINT, 10.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0))


def stop_orphan(cluster: Path) -> None:
    """Stop the server of `cluster`, and remove a lock file of another process.

    PostgreSQL itself ignores the lock file of a dead process, but not one whose process id now belongs to a zombie or
    to an unrelated process: that file is removed here. Raises DevstackError when the server does not stop.
    """
    lock = cluster / "postmaster.pid"
    pid = locked_by(lock)
    if pid is None:
        return
    for step, timeout_seconds in STEPS:
        if not serves(pid, cluster):
            break
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, step)
        wait_for_exit(pid, cluster, timeout_seconds)
    if serves(pid, cluster):
        raise DevstackError(f"An earlier PostgreSQL (process {pid}) still uses {cluster} and does not stop.")
    if exists(pid):
        lock.unlink(missing_ok=True)


def locked_by(lock: Path) -> int | None:
    """Return the process id in the lock file (src/include/utils/pidfile.h)."""
    try:
        return int(lock.read_text().split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return None


def serves(pid: int, cluster: Path) -> bool:
    """Return whether the process is the server of this cluster.

    A zombie is not: it has no command line.
    """
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return os.path.basename(command[0]) == b"postgres" and os.fsencode(cluster) in command


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def wait_for_exit(pid: int, cluster: Path, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while serves(pid, cluster) and time.monotonic() < deadline:
        time.sleep(0.05)
