from operator import attrgetter
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from service_registry.changelog import prune
from service_registry.management.batches import BatchRun
from service_registry.management.command_line import parse_duration


class Command(BaseCommand):
    help = "Prune old changes from the change log, except those that still describe the present state."

    def add_arguments(self, parser: CommandParser) -> None:
        default = f"{settings.REGISTRY_CHANGE_RETENTION_DAYS}d"
        parser.add_argument(
            "--older-than",
            metavar="DURATION",
            default=default,
            help=f"age of the changes to prune, as 90s, 10m, 2h or 7d; else {default}",
        )
        parser.add_argument("--dry-run", action="store_true", help="change nothing; count what would be pruned")

    def handle(self, *, older_than: str, dry_run: bool, **_: Any) -> None:
        plan = prune.plan_pruning(parse_duration("--older-than", older_than))
        count = prune.count_planned(plan)
        self.stdout.write(f"{count} changes are older than {plan.cutoff:%Y-%m-%d %H:%M:%S} UTC.")
        run = BatchRun(self.stdout, count, "examined")
        pruned = 0
        try:
            for step in run.over((prune.count_obsolete if dry_run else prune.prune)(plan), attrgetter("examined")):
                pruned += step.obsolete
        except prune.PruneInProgress:
            raise CommandError(
                f"{pruned} changes pruned; another process is pruning the log and does the rest."
            ) from None
        self.stdout.write(f"{pruned} {'would be pruned: nothing was changed' if dry_run else 'changes pruned'}.")
        run.exit_if_interrupted()
