import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error
from pydantic import TypeAdapter, ValidationError

from service_registry import logs, manager
from service_registry.management.durations import seconds
from service_registry.management.interrupts import INTERRUPTED, Interrupts
from service_registry.management.operator import OPERATOR
from service_registry.management.orders import ordered
from service_registry.management.progress import Progress
from service_registry.schemas import Reason

logger = logging.getLogger(__name__)

INSTANCES_A_TRANSACTION = 250
# Between two transactions, as a share of the time of one: others have the database to themselves meanwhile.
REST = 0.5
EXAMPLES = 5


class Command(BaseCommand):
    help = "Take instances off the list, for good, by what they are: all filters must match."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--namespace")
        parser.add_argument("--service", help="the name of one service")
        parser.add_argument("--status", action="append", help="an effective status; repeatable: any of them")
        parser.add_argument("--zone")
        parser.add_argument("--metadata", action="append", default=[], metavar="KEY=VALUE", help="repeatable: all")
        parser.add_argument("--silent-for", metavar="DURATION", help="not heard for 90s, 10m, 2h or 1d")
        parser.add_argument("--all", action="store_true", help="needed when there is no filter")
        parser.add_argument("--reason", help="kept with the changes")
        parser.add_argument("--dry-run", action="store_true", help="change nothing, and print what would be removed")
        parser.add_argument("--yes", action="store_true", help="do not ask")

    def handle(self, *, reason: str | None, dry_run: bool, yes: bool, **options: Any) -> None:
        selection = selection_of(options)
        stated = None if dry_run else checked_reason(reason)
        if not (dry_run or yes or sys.stdin.isatty()):
            raise CommandError("This is no terminal to ask on: say --yes to remove them, or --dry-run to look.")
        count, examples = manager.preview(selection, EXAMPLES)
        self.show(count, examples)
        if stated is None or not count or not (yes or self.confirmed()):
            self.stdout.write("Nothing was changed.")
        else:
            self.remove(selection, stated, count)

    def show(self, count: int, examples: Sequence[manager.Selected]) -> None:
        self.stdout.write(f"{count} instances match{':' if count else '.'}")
        for found in examples:
            name = f"{found.namespace}/{found.service_name}/{found.instance_id}"
            self.stdout.write(f"  {name}, last heard at {found.heartbeat_at}")
        if count > len(examples):
            self.stdout.write(f"  ... and {count - len(examples)} more")

    def confirmed(self) -> bool:
        try:
            return input("Remove them? Type yes: ") == "yes"
        except (EOFError, KeyboardInterrupt):
            return False

    def remove(self, selection: manager.Selection, reason: str, count: int) -> None:
        """Remove batch by batch. Ctrl-C lets the batch under way finish."""
        progress, begun = Progress(self.stdout, count, "removed"), time.monotonic()
        with Interrupts() as interrupts:
            try:
                for batch in rested(manager.remove(selection, reason, OPERATOR, INSTANCES_A_TRANSACTION)):
                    progress.add(len(batch))
                    if interrupts.seen:
                        break
            except Error as error:
                why = str(error).splitlines()[0]
                raise CommandError(f"{progress.done} removed, then: {why}. Run it again for the others.") from error
            finally:
                progress.end()
                tell(selection, progress.done, time.monotonic() - begun)
        if interrupts.seen:
            self.stdout.write(f"Interrupted: {progress.done} of {count} removed; the others are as they were.")
            sys.exit(INTERRUPTED)
        self.stdout.write(f"{progress.done} instances removed.")


def rested(batches: Iterator[list[manager.Selected]]) -> Iterator[list[manager.Selected]]:
    """The same, with a rest after each."""
    begun = time.monotonic()
    for batch in batches:
        time.sleep((time.monotonic() - begun) * REST)
        yield batch
        begun = time.monotonic()


def tell(selection: manager.Selection, count: int, duration_seconds: float) -> None:
    """Log what was removed, also when an error or an interrupt ended it."""
    if count:
        named = {"namespace": selection.namespace, "service_name": selection.service_name, "actor": OPERATOR.actor}
        done = {"items": count, "outcomes": {"ok": count}, "duration_ms": round(duration_seconds * 1000, 3)}
        logs.event(logger, logging.INFO, "remove", named | done)


def selection_of(options: dict[str, Any]) -> manager.Selection:
    """The filters of the command line. Raises CommandError with one sentence."""
    asked = {
        "namespace": options["namespace"],
        "service_name": options["service"],
        "status": options["status"],
        "zone": options["zone"],
        "metadata": pairs(options["metadata"]),
        "silent_for_seconds": seconds("--silent-for", options["silent_for"]) if options["silent_for"] else None,
    }
    named = {name: value for name, value in asked.items() if value}
    if not named and not options["all"]:
        raise CommandError("Name a filter, or say --all to remove every instance.")
    return ordered(manager.Selection, named)


def pairs(texts: Iterable[str]) -> dict[str, str]:
    if not all("=" in text for text in texts):
        raise CommandError("--metadata must be KEY=VALUE.")
    return dict(text.split("=", 1) for text in texts)


def checked_reason(reason: str | None) -> str:
    try:
        return TypeAdapter(Reason).validate_python(reason)
    except ValidationError as error:
        raise CommandError("Say --reason, in 1 to 512 characters on one line: it is kept with the changes.") from error
