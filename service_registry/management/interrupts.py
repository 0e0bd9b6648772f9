"""Ctrl-C that waits for the end of a step."""

import signal
from types import FrameType

INTERRUPTED = 130  # what a shell reports of a command that Ctrl-C has ended


class Interrupts:
    """While this is open the first Ctrl-C is only noted, in `seen`; a second one interrupts as ever."""

    def __init__(self) -> None:
        self.seen = False

    def __enter__(self) -> "Interrupts":
        self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_error: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self.seen = True
        signal.signal(signal.SIGINT, self._before)
