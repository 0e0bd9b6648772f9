import sys
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error

from service_registry.changelog import prune
from service_registry.management.durations import seconds
from service_registry.management.interrupts import INTERRUPTED, Interrupts
from service_registry.management.progress import Progress


class Command(BaseCommand):
    help = "Take old changes out of the log, but for those that still say how things stand."

    def add_arguments(self, parser: CommandParser) -> None:
        days = settings.REGISTRY_CHANGE_RETENTION_DAYS
        parser.add_argument(
            "--older-than", metavar="DURATION", default=f"{days}d", help=f"as 90s, 10m, 2h or 7d; else {days}d"
        )
        parser.add_argument("--dry-run", action="store_true", help="change nothing, and count what would go")

    def handle(self, *, older_than: str, dry_run: bool, **_: Any) -> None:
        planned = prune.plan_pruning(seconds("--older-than", older_than))
        count = prune.count_planned(planned)
        self.stdout.write(f"{count} changes are from before {planned.cutoff:%Y-%m-%d %H:%M:%S} UTC.")
        progress = Progress(self.stdout, count, "examined")
        with Interrupts() as interrupts:
            spent = self.go_through(planned, dry_run, progress, interrupts)
        progress.end()
        said = "would be pruned: nothing was changed" if dry_run else "changes pruned"
        self.stdout.write(f"{spent} {said}{'; interrupted, the others are as they were' if interrupts.seen else ''}.")
        if interrupts.seen:
            sys.exit(INTERRUPTED)

    def go_through(self, planned: prune.PrunePlan, dry_run: bool, progress: Progress, interrupts: Interrupts) -> int:
        """How many were spent. Ctrl-C lets the step under way finish."""
        spent = 0
        try:
            for step in (prune.count_obsolete if dry_run else prune.prune)(planned):
                spent += step.obsolete
                progress.add(step.examined)
                if interrupts.seen:
                    break
        except prune.PruneInProgress:
            raise CommandError(
                f"{spent} changes pruned; another process prunes the log now, and does the rest."
            ) from None
        except Error as error:
            why = str(error).splitlines()[0]
            raise CommandError(f"{spent} changes pruned, then: {why}. Run it again for the others.") from error
        return spent
