from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from service_registry.expiry import dry_run as forecast
from service_registry.expiry.dry_run import Outlook, Prospect
from service_registry.expiry.evidence import rfc3339
from service_registry.expiry.sweep import sweep


class Command(BaseCommand):
    help = "Sweep once: expire or hold what is silent, remove what has been expired for long, end overrides."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="change nothing, and print what a sweep would do")

    def handle(self, *, dry_run: bool, **_: Any) -> None:
        if dry_run:
            self.show(forecast.outlook())
        else:
            self.sweep()

    def sweep(self) -> None:
        report = sweep()
        if not report.finished:
            self.stdout.write("Another sweep is under way, and does it.")
        self.stdout.write(
            f"{report.expired} expired, {report.protected} protected, {report.purged} purged, "
            f"{report.overrides_ended} overrides ended, {report.statuses_settled} statuses settled."
        )

    def show(self, outlook: Outlook) -> None:
        self.stdout.write(passing(outlook))
        leaving = held = 0
        for prospect in forecast.prospects(outlook):
            leaving += prospect.leaves
            held += not prospect.leaves
            self.stdout.write(line(prospect))
        removed = outlook.retained_enough if outlook.time_passes else 0
        self.stdout.write(
            f"A sweep would expire {leaving}, keep {held} that are past their deadline, remove {removed} "
            f"and end {outlook.overrides_over} overrides. The last one finished at {outlook.swept_at}."
        )


def passing(outlook: Outlook) -> str:
    """Whether time passes, and since when."""
    if not outlook.counted.hears:
        return f"No web process has pulsed since {outlook.observed_at}: time stands still."
    if not outlook.time_passes:
        return (
            f"The registry hears, but of its whole fleet nobody since {outlook.suspended_at}: time stands still, until "
            f"{outlook.suspended_until} or a heartbeat."
        )
    return (
        f"The registry hears, without a gap since {outlook.window_started_at} ({outlook.window_reason}): "
        "silence counts from then, or from the last heartbeat if that is later."
    )


def line(prospect: Prospect) -> str:
    """What would become of one instance, and why."""
    found = prospect.candidate
    name = f"{found.namespace}/{found.service_name}/{found.instance_id}"
    facts = f"last heard at {rfc3339(found.heartbeat_at)}, deadline {rfc3339(found.deadline)}"
    return f"{name} {prospect.fate}: {facts}."
