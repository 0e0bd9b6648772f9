import sys
from operator import attrgetter
from pathlib import Path
from typing import Any, TextIO

from django.core.management.base import BaseCommand, CommandError, CommandParser

from service_registry.management.batches import BatchRun
from service_registry.management.command_line import OPERATOR, first_line
from service_registry.transfer.importing import import_lines


class Command(BaseCommand):
    help = "Import services, instances and overrides from a file that export_registry wrote. Safe to repeat."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path, help="a file or a pipe; - is the standard input")
        parser.add_argument("--dry-run", action="store_true", help="change nothing; print which lines are wrong")

    def handle(self, *, file: Path, dry_run: bool, **_: Any) -> None:
        with open_text(file) as lines:
            self.import_file(lines, count_lines(lines), dry_run)

    def import_file(self, lines: TextIO, count: int | None, dry_run: bool) -> None:
        run, refused = BatchRun(self.stdout, count, "read"), 0
        for batch in run.over(import_lines(lines, OPERATOR, dry_run), attrgetter("lines")):
            refused += len(batch.refused)
            for line in batch.refused:
                self.stderr.write(f"line {line.number}: {line.reason}")
        imported = "are valid" if dry_run else "imported"
        self.stdout.write(f"{run.done - refused} lines {imported}, {refused} refused.")
        run.exit_if_interrupted()
        if refused:
            sys.exit(1)


def open_text(file: Path) -> TextIO:
    """Open the file, or the standard input. Raises CommandError."""
    try:
        if file == Path("-"):
            return open(sys.stdin.fileno(), encoding="utf-8", closefd=False)
        return file.open(encoding="utf-8")
    except (OSError, ValueError) as error:  # ValueError: a null byte in its name
        raise unreadable(error) from error


def count_lines(lines: TextIO) -> int | None:
    """Return the number of lines, None for a pipe, which can be read only once. Raises CommandError."""
    if not lines.seekable():
        return None
    try:
        count = sum(1 for _line in lines)
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(error) from error
    lines.seek(0)
    return count


def unreadable(error: Exception) -> CommandError:
    return CommandError(f"The file cannot be read: {first_line(error)}.")
