"""Child processes that outlive nobody: each in a session of its own, each ended when its parent is."""

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
    """What a child runs between fork and exec, so that it is sent `death_signal` when its parent has died."""
    parent = os.getpid()

    def prepare() -> None:
        if sys.platform == "linux":
            libc.prctl(PR_SET_PDEATHSIG, death_signal)
        if os.getppid() != parent:
            os._exit(1)  # The parent died before the request to be told stood.

    return prepare


def spawn(
    command: Sequence[str],
    *,
    variables: Mapping[str, str] | None = None,
    death_signal: signal.Signals = signal.SIGTERM,
    output: IO[bytes] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a child in a session of its own, so that Ctrl-C in the terminal reaches its parent alone.

    To be called from the main thread: the death signal is bound to the thread that forks.
    """
    return subprocess.Popen(  # noqa: S603 - the commands are our own
        command,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
        preexec_fn=end_with_parent(death_signal),  # noqa: PLW1509 - the caller forks from a process of one thread
    )


def stop(process: subprocess.Popen[bytes], first: signal.Signals, patience_seconds: float) -> None:
    """Ask a child to end, wait, then end it and whatever it has left in its group."""
    if process.poll() is None:
        process.send_signal(first)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience_seconds)
    end_group(process)
    process.wait()


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End every process of the child's group. The group's number stays ours as long as one of them lives."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def free_port() -> int:
    """A loopback port that nobody listens on at this moment.

    It lies below those that outgoing connections are given (32768 and up on Linux), so that none of them sits on it
    while a server of ours is started again.
    """
    while True:
        port = secrets.choice(SERVER_PORTS)
        if can_listen("127.0.0.1", port):
            return port


def can_listen(host: str, port: int) -> bool:
    """Whether a server may be started on this address. Raises OSError when the address is not this machine's."""
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
