from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from service_registry.expiry import forecast
from service_registry.expiry.sweep import sweep


class Command(BaseCommand):
    help = "Sweep once: expire what is silent, remove what has been expired for long, end overrides that are over."

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
            f"{report.expired} expired, {report.removed} removed, {report.overrides_ended} overrides ended, "
            f"{report.statuses_settled} statuses settled."
        )

    def show(self, outlook: forecast.Outlook) -> None:
        self.stdout.write(hearing(outlook))
        fate = "would expire" if outlook.hears else "is kept"
        for found in forecast.overdue():
            name = f"{found.namespace}/{found.service_name}/{found.instance_id}"
            self.stdout.write(f"{name} {fate}: last heard at {found.heartbeat_at}, deadline {found.deadline}.")
        removed = outlook.retained_enough if outlook.hears else 0
        self.stdout.write(
            f"A sweep would expire {outlook.overdue if outlook.hears else 0}, remove {removed} "
            f"and end {outlook.overrides_over} overrides. The last one finished at {outlook.swept_at}."
        )


def hearing(outlook: forecast.Outlook) -> str:
    """Whether time stands still, and since when."""
    if outlook.hears:
        return (
            f"The registry hears, without a gap since {outlook.window_start} ({outlook.window_reason}): "
            "silence counts from then, or from the last heartbeat if that is later."
        )
    return (
        f"The registry has heard nothing since {outlook.heard_at}, as no web process pulses: time stands still, "
        f"and {outlook.overdue} past their deadline are kept."
    )
