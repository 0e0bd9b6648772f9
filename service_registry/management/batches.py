"""Run the batches of a long command with progress; Ctrl-C ends it between batches."""

import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import TypeVar

from django.core.management.base import CommandError, OutputWrapper
from django.db import Error

from service_registry.management.command_line import first_line

Batch = TypeVar("Batch")

INTERRUPTED = 130  # exit code that a shell reports for a command that SIGINT has ended
BAR_WIDTH = 40


class BatchRun:
    """A run over batches that are committed one by one.

    Args:
        output: where progress goes: a bar on a terminal, otherwise a line for each batch.
        total: number of rows that the run expects, None when they cannot be counted before.
        participle: what happens to a row, e.g. "removed".
    """

    def __init__(self, output: OutputWrapper, total: int | None, participle: str) -> None:
        self.output = output
        self.total = total
        self.participle = participle
        self.done = 0
        self.interrupted = False

    @property
    def counts(self) -> str:
        return f"{self.done}{'' if self.total is None else f' of {self.total}'} {self.participle}"

    def over(self, batches: Iterable[Batch], size: Callable[[Batch], int]) -> Iterator[Batch]:
        """Yield batches until they end or Ctrl-C arrives.

        A second Ctrl-C interrupts the current batch.

        Raises:
            CommandError: the database refused a batch, or a file is not text; the batches before it are committed.
        """
        default = signal.signal(signal.SIGINT, self.note_interrupt)
        try:
            for batch in batches:
                yield batch
                self.add(size(batch))
                if self.interrupted:
                    break
        except (Error, UnicodeDecodeError) as error:
            raise CommandError(f"{self.counts}, then: {first_line(error)}. Run it again for the rest.") from error
        finally:
            signal.signal(signal.SIGINT, default)
            if self.output.isatty():
                self.output.write("")

    def note_interrupt(self, _number: int, _frame: FrameType | None) -> None:
        self.interrupted = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def add(self, count: int) -> None:
        self.done += count
        if self.output.isatty():
            self.output.write(f"\r{self.bar()}{self.counts}", ending="")
            self.output.flush()
        else:
            self.output.write(self.counts)

    def bar(self) -> str:
        if self.total is None:
            return ""
        full = BAR_WIDTH * min(self.done, self.total) // self.total
        return f"[{'#' * full}{'.' * (BAR_WIDTH - full)}] "

    def exit_if_interrupted(self) -> None:
        if self.interrupted:
            self.output.write(f"Interrupted: {self.counts}; the rest is unchanged.")
            sys.exit(INTERRUPTED)
