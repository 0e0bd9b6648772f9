"""The server that a killed supervisor left behind: told from a stranger with its number, and ended."""

import contextlib
import os
import signal
import time
from pathlib import Path

from registry_project.devstack.exceptions import EmbeddedError

# A fast shutdown first, then an immediate one, then the end; each with the seconds it is given.
STEPS = ((signal.SIGINT, 10.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0))


def end(cluster: Path) -> None:
    """End the server that works on `cluster`, if one does, and drop a lock file that names anybody else.

    PostgreSQL itself sees through the lock file of a dead process. It does not see through one whose number now
    belongs to a zombie or a stranger: that one is removed here. Raises EmbeddedError when the server does not end.
    """
    lock = cluster / "postmaster.pid"
    pid = holder(lock)
    if pid is None:
        return
    for step, patience_seconds in STEPS:
        if not serves(pid, cluster):
            break
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, step)
        wait(pid, cluster, patience_seconds)
    if serves(pid, cluster):
        raise EmbeddedError(f"An earlier PostgreSQL (process {pid}) still holds {cluster} and does not end.")
    if exists(pid):
        lock.unlink(missing_ok=True)


def holder(lock: Path) -> int | None:
    """The process that the lock file names; its first line (PostgreSQL, src/include/utils/pidfile.h)."""
    try:
        return int(lock.read_text().split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return None


def serves(pid: int, cluster: Path) -> bool:
    """Whether this process is the server of this cluster. A zombie has no command line and is none."""
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


def wait(pid: int, cluster: Path, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while serves(pid, cluster) and time.monotonic() < deadline:
        time.sleep(0.05)
