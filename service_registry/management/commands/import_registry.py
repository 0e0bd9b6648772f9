import sys
from pathlib import Path
from typing import Any, TextIO

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error

from service_registry.management.interrupts import INTERRUPTED, Interrupts
from service_registry.management.operator import OPERATOR
from service_registry.management.progress import Progress
from service_registry.transfer import importing


class Command(BaseCommand):
    help = "Take services, instances and overrides from a file of export_registry. Safe to repeat."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path, help="or a pipe; - is the standard input")
        parser.add_argument("--dry-run", action="store_true", help="change nothing, and say which lines are wrong")

    def handle(self, *, file: Path, dry_run: bool, **_: Any) -> None:
        try:
            with opened(file) as lines:
                self.take(lines, counted(lines), dry_run)
        except BrokenPipeError:  # of what we print
            raise
        except (OSError, UnicodeDecodeError) as error:
            raise CommandError(f"The file cannot be read: {why(error)}.") from error

    def take(self, lines: TextIO, count: int | None, dry_run: bool) -> None:
        """Import batch by batch. Ctrl-C lets the batch under way finish."""
        progress, refused = Progress(self.stdout, count, "read"), 0
        with Interrupts() as interrupts:
            try:
                for batch in importing.take(lines, OPERATOR, dry_run):
                    refused += len(batch.refused)
                    for line in batch.refused:
                        self.stderr.write(f"line {line.line}: {line.why}")
                    progress.add(batch.lines)
                    if interrupts.seen:
                        break
            except (Error, UnicodeDecodeError) as error:
                said = f"{progress.done} lines read, then: {why(error)}. Run it again for the others."
                raise CommandError(said) from error
        progress.end()
        self.stdout.write(
            f"{progress.done - refused} lines {'are right' if dry_run else 'imported'}, {refused} refused."
        )
        if interrupts.seen:
            self.stdout.write(f"Interrupted after {progress.counts}.")
            sys.exit(INTERRUPTED)
        if refused:
            sys.exit(1)


def opened(file: Path) -> TextIO:
    if file == Path("-"):
        return open(sys.stdin.fileno(), encoding="utf-8", closefd=False)
    return file.open(encoding="utf-8")


def counted(lines: TextIO) -> int | None:
    """How many there are; None for a pipe, which is read once."""
    if not lines.seekable():
        return None
    count = sum(1 for _line in lines)
    lines.seek(0)
    return count


def why(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8"
    return (getattr(error, "strerror", None) or str(error)).splitlines()[0]
