import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from pydantic import TypeAdapter, ValidationError

from service_registry import logs, manager
from service_registry.management.batches import BatchRun
from service_registry.management.command_line import OPERATOR, build_order, parse_duration
from service_registry.schemas import Reason

logger = logging.getLogger(__name__)

INSTANCES_PER_TRANSACTION = 250
# Pause after a transaction, as a share of its duration: other clients get the locks and the disk meanwhile.
PAUSE = 0.5
EXAMPLES = 5


class Command(BaseCommand):
    help = "Remove (deregister) all instances that match every given filter."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--namespace")
        parser.add_argument("--service", help="name of one service")
        parser.add_argument("--status", action="append", help="effective status; repeat it to match any of several")
        parser.add_argument("--zone")
        parser.add_argument(
            "--metadata", action="append", default=[], metavar="KEY=VALUE", help="repeat it to match all of several"
        )
        parser.add_argument(
            "--silent-for", metavar="DURATION", help="no heartbeat for 90s, 10m, 2h or 1d, of instances that have a TTL"
        )
        parser.add_argument("--all", action="store_true", help="required when no filter is given")
        parser.add_argument("--reason", help="stored with the changes; required unless --dry-run is given")
        parser.add_argument("--dry-run", action="store_true", help="change nothing; print what would be removed")
        parser.add_argument("--yes", action="store_true", help="do not ask for confirmation")

    def handle(self, *, reason: str | None, dry_run: bool, yes: bool, **options: Any) -> None:
        selection = build_selection(options)
        valid_reason = None if dry_run else validate_reason(reason)
        if not (dry_run or yes or sys.stdin.isatty()):
            raise CommandError("Standard input is not a terminal: give --yes to remove, or --dry-run to look.")
        count, examples = manager.preview(selection, EXAMPLES)
        self.print_preview(count, examples)
        if valid_reason is None or not count or not (yes or self.is_confirmed()):
            self.stdout.write("Nothing was changed.")
        else:
            self.remove(selection, valid_reason, count)

    def print_preview(self, count: int, examples: Sequence[manager.Selected]) -> None:
        self.stdout.write(f"{count} instances match{':' if count else '.'}")
        for found in examples:
            name = f"{found.namespace}/{found.service_name}/{found.instance_id}"
            self.stdout.write(f"  {name}, last heartbeat at {found.heartbeat_at}")
        if count > len(examples):
            self.stdout.write(f"  ... and {count - len(examples)} more")

    def is_confirmed(self) -> bool:
        try:
            return input("Remove them? Type yes: ") == "yes"
        except (EOFError, KeyboardInterrupt):
            return False

    def remove(self, selection: manager.Selection, reason: str, count: int) -> None:
        run, started = BatchRun(self.stdout, count, "removed"), time.monotonic()
        try:
            for _batch in run.over(with_pauses(batches_of(selection, reason)), len):
                pass
        finally:
            log_removal(selection, run.done, time.monotonic() - started)
        run.exit_if_interrupted()
        self.stdout.write(f"{run.done} instances removed.")


def batches_of(selection: manager.Selection, reason: str) -> Iterator[list[manager.Selected]]:
    return manager.remove(selection, reason, OPERATOR, INSTANCES_PER_TRANSACTION)


def with_pauses(batches: Iterator[list[manager.Selected]]) -> Iterator[list[manager.Selected]]:
    """Yield the batches, with a pause after each."""
    started = time.monotonic()
    for batch in batches:
        time.sleep((time.monotonic() - started) * PAUSE)
        yield batch
        started = time.monotonic()


def log_removal(selection: manager.Selection, count: int, duration_seconds: float) -> None:
    """Log how many instances were removed, also after an error or an interrupt."""
    if count:
        named = {"namespace": selection.namespace, "service_name": selection.service_name, "actor": OPERATOR.actor}
        done = {"items": count, "outcomes": {"ok": count}, "duration_ms": round(duration_seconds * 1000, 3)}
        logs.log_event(logger, logging.INFO, "remove", named | done)


def build_selection(options: dict[str, Any]) -> manager.Selection:
    """Return the filters of the command line. Raises CommandError with one sentence."""
    silent_for = options["silent_for"]
    filters = {
        "namespace": options["namespace"],
        "service_name": options["service"],
        "status": options["status"],
        "zone": options["zone"],
        "metadata": parse_pairs(options["metadata"]),
        "silent_for_seconds": None if silent_for is None else parse_duration("--silent-for", silent_for),
    }
    # An empty value is refused below: it would otherwise widen the selection where a shell variable is not set.
    given = {name: value for name, value in filters.items() if value not in (None, {})}
    if not given and not options["all"]:
        raise CommandError("Give a filter, or --all to remove every instance.")
    return build_order(manager.Selection, given)


def parse_pairs(texts: Iterable[str]) -> dict[str, str]:
    if not all("=" in text for text in texts):
        raise CommandError("--metadata must be KEY=VALUE.")
    return dict(text.split("=", 1) for text in texts)


def validate_reason(reason: str | None) -> str:
    try:
        return TypeAdapter(Reason).validate_python(reason)
    except ValidationError as error:
        raise CommandError(
            "Give --reason, in 1 to 512 characters on one line: it is stored with the changes."
        ) from error
