"""The components of a running registry, and how one that dies is restarted."""

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Protocol

from registry_project.devstack import DevstackError, processes

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 10.0
# A component that has run this long was healthy: the pause before its next restart is the first one again.
HEALTHY_AFTER_SECONDS = 10.0


class Component(Protocol):
    name: str

    def launch(self) -> None: ...
    def is_alive(self) -> bool: ...
    def stop(self) -> None: ...
    def stop_immediately(self) -> None: ...


class Command:
    """A component that is a Python process of this project.

    Arguments:
        arguments: of the Python interpreter.
        timeout_seconds: the time between SIGTERM and SIGKILL.
        death_signal: the signal that the process gets when the supervisor is killed.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        timeout_seconds: float,
        death_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.name = name
        self.command = [sys.executable, *arguments]
        self.timeout_seconds = timeout_seconds
        self.death_signal = death_signal
        self.process: subprocess.Popen[bytes] | None = None

    def launch(self) -> None:
        if self.process:
            # Children of the dead process may still be there and listen on its port.
            processes.kill_group(self.process)
            self.process.wait()
        self.process = processes.spawn(self.command, death_signal=self.death_signal)

    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def stop(self) -> None:
        if self.process:
            processes.stop(self.process, signal.SIGTERM, self.timeout_seconds)

    def stop_immediately(self) -> None:
        if self.process:
            processes.kill_group(self.process)


class Supervised:
    """A component with its restarts: it either runs, or waits for `restart_at`."""

    def __init__(self, component: Component, first_pause_seconds: float = FIRST_PAUSE_SECONDS) -> None:
        self.component = component
        self.deaths = 0
        self.first_pause_seconds = first_pause_seconds
        self.pause_seconds = first_pause_seconds
        self.launched_at = 0.0
        self.restart_at: float | None = 0.0

    def check(self) -> None:
        """Schedule a restart when the component has died; restart it after the pause."""
        if self.restart_at is None:
            self.check_alive()
        elif time.monotonic() >= self.restart_at:
            self.launch()

    def check_alive(self) -> None:
        if time.monotonic() - self.launched_at > HEALTHY_AFTER_SECONDS:
            self.pause_seconds = self.first_pause_seconds
        if not self.component.is_alive():
            self.deaths += 1
            self.schedule_restart(f"{self.component.name} has exited")

    def launch(self) -> None:
        self.launched_at = time.monotonic()
        try:
            self.component.launch()
        except DevstackError as error:
            self.deaths += 1
            self.schedule_restart(f"{self.component.name} did not start: {error}")
        else:
            self.restart_at = None

    def schedule_restart(self, reason: str) -> None:
        report(f"{reason}; restarting it in {self.pause_seconds:g} s.")
        self.restart_at = time.monotonic() + self.pause_seconds
        self.pause_seconds = min(2 * self.pause_seconds, LONGEST_PAUSE_SECONDS)


def report(sentence: str) -> None:
    print(f"registry: {sentence}", flush=True)
