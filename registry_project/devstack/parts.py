"""The parts of a running registry, and how one that dies is started again."""

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Protocol

from registry_project.devstack import processes
from registry_project.devstack.exceptions import EmbeddedError

SHORTEST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 10.0
# A part that has lived this long was well: its next death is a first one again.
WELL_AFTER_SECONDS = 10.0


class Part(Protocol):
    name: str

    def launch(self) -> None: ...
    def alive(self) -> bool: ...
    def stop(self) -> None: ...
    def hurry(self) -> None: ...


class Command:
    """A part that is one of our own commands, `python -m ...`.

    Arguments:
        patience_seconds: what it gets between being asked to end and being ended.
        death_signal: what it is sent when the supervisor itself was killed.
    """

    def __init__(
        self,
        name: str,
        module: Sequence[str],
        patience_seconds: float,
        death_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.name = name
        self.command = [sys.executable, *module]
        self.patience_seconds = patience_seconds
        self.death_signal = death_signal
        self.process: subprocess.Popen[bytes] | None = None

    def launch(self) -> None:
        if self.process:
            processes.end_group(self.process)  # what a dead parent's own children still hold: the port, say
            self.process.wait()
        self.process = processes.spawn(self.command, death_signal=self.death_signal)

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def stop(self) -> None:
        if self.process:
            processes.stop(self.process, signal.SIGTERM, self.patience_seconds)

    def hurry(self) -> None:
        if self.process:
            processes.end_group(self.process)


class Tended:
    """A part under care: told apart are one that runs and one that waits for its next start."""

    def __init__(self, part: Part, shortest_pause_seconds: float = SHORTEST_PAUSE_SECONDS) -> None:
        self.part = part
        self.deaths = 0
        self.shortest_pause_seconds = shortest_pause_seconds
        self.pause_seconds = shortest_pause_seconds
        self.launched_at = 0.0
        self.due_at: float | None = 0.0

    def tend(self) -> None:
        """Look after the part once: notice its death, or start it when its pause is over."""
        if self.due_at is None:
            self.look()
        elif time.monotonic() >= self.due_at:
            self.launch()

    def look(self) -> None:
        lived_seconds = time.monotonic() - self.launched_at
        if lived_seconds > WELL_AFTER_SECONDS:
            self.pause_seconds = self.shortest_pause_seconds
        if not self.part.alive():
            self.deaths += 1
            self.postpone(f"{self.part.name} has ended")

    def launch(self) -> None:
        self.launched_at = time.monotonic()
        try:
            self.part.launch()
        except EmbeddedError as error:
            self.deaths += 1
            self.postpone(f"{self.part.name} did not start: {error}")
        else:
            self.due_at = None

    def postpone(self, reason: str) -> None:
        say(f"{reason}; starting it again in {self.pause_seconds:g} s.")
        self.due_at = time.monotonic() + self.pause_seconds
        self.pause_seconds = min(2 * self.pause_seconds, LONGEST_PAUSE_SECONDS)


def say(sentence: str) -> None:
    print(f"registry: {sentence}", flush=True)
