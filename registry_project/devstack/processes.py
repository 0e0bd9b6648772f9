"""Start and stop child processes that end with their parent; find free ports."""

import contextlib
import ctypes
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import IO

# prctl(2): the signal a process gets when the thread that made it ends, kill -9 included.
PR_SET_PDEATHSIG = 1
SERVER_PORTS = range(20_000, 32_000)

libc = ctypes.CDLL(None)


def end_with_parent(death_signal: signal.Signals) -> Callable[[], None]:
    """Return a `preexec_fn`: the child gets `death_signal` when its parent dies."""
    parent = os.getpid()

    def prepare() -> None:
        if sys.platform == "linux":
            libc.prctl(PR_SET_PDEATHSIG, death_signal)
        if os.getppid() != parent:
            os._exit(1)  # The parent died before prctl was called, and the signal would never come.

    return prepare


def spawn(
    command: Sequence[str],
    *,
    variables: Mapping[str, str] | None = None,
    death_signal: signal.Signals = signal.SIGTERM,
    output: IO[bytes] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a child in its own session, so that Ctrl-C reaches only its parent.

    Call this from the main thread: the death signal is bound to the thread that forks.
    """
    return subprocess.Popen(  # noqa: S603 - no command comes from outside
        command,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
        preexec_fn=end_with_parent(death_signal),  # noqa: PLW1509 - the caller forks from a process of one thread
    )


def stop(process: subprocess.Popen[bytes], first: signal.Signals, timeout_seconds: float) -> None:
    """Send a child the signal `first`, wait, then kill its process group."""
    if process.poll() is None:
        process.send_signal(first)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout_seconds)
    kill_group(process)
    process.wait()


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill every process of the child's group.

    The group's id is not used again as long as one of them lives.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def free_port() -> int:
    """Return a loopback port on which no process listens now.

    It is below the ports of outgoing connections (32768 and up on Linux), so that none of those can take it while a
    server is restarted.
    """
    while True:
        port = secrets.choice(SERVER_PORTS)
        if can_listen("127.0.0.1", port):
            return port


def can_listen(host: str, port: int) -> bool:
    """Return whether the address is free to listen on.

    Raises OSError when it does not belong to this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno in {98, 48}:  # EADDRINUSE on Linux and on macOS
                return False
            raise
    return True
