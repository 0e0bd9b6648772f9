"""Sweep once, or show what a sweep would do."""

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from service_registry.expiry.dry_run import Outlook, Prediction, predict, read_outlook
from service_registry.expiry.evidence import format_rfc3339
from service_registry.expiry.sweep import sweep


class Command(BaseCommand):
    help = "Sweep once: expire or protect instances past their deadline, purge old rows, end overrides."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="change nothing; print what a sweep would do")

    def handle(self, *, dry_run: bool, **_: Any) -> None:
        if dry_run:
            self.show(read_outlook())
        else:
            self.sweep()

    def sweep(self) -> None:
        report = sweep()
        if not report.finished:
            self.stdout.write("Another sweep is running, and does the work.")
        self.stdout.write(
            f"{report.expired} expired, {report.protected} protected, {report.purged} purged, "
            f"{report.overrides_ended} overrides ended, {report.statuses_applied} delayed status changes applied."
        )

    def show(self, outlook: Outlook) -> None:
        self.stdout.write(describe_state(outlook))
        expire = keep = 0
        for prediction in predict(outlook):
            expire += prediction.expires
            keep += not prediction.expires
            self.stdout.write(describe_instance(prediction))
        purge = outlook.past_retention if outlook.expiry_runs else 0
        self.stdout.write(
            f"In all {expire} would expire, {keep} would stay past their deadline, {purge} rows would be purged and "
            f"{outlook.overrides_over} overrides would end. The last sweep finished at {outlook.swept_at}."
        )


def describe_state(outlook: Outlook) -> str:
    """Describe whether instances can expire, and the start of the observation window."""
    if not outlook.fleet.is_observed:
        return f"Nothing expires: no web process has pulsed since {outlook.observed_at}."
    if not outlook.expiry_runs:
        return (
            f"Expiry is suspended: no heartbeat has arrived from the whole fleet since {outlook.suspended_at}. "
            f"It resumes at {outlook.suspended_until}, or with the next heartbeat."
        )
    return (
        f"Expiry runs. The observation window started at {outlook.window_started_at} ({outlook.window_reason}): "
        "deadlines count from then, or from the last heartbeat if that is later."
    )


def describe_instance(prediction: Prediction) -> str:
    """Describe what a sweep would do with one instance, and the times that decide it."""
    lease = prediction.lease
    name = f"{lease.namespace}/{lease.service_name}/{lease.instance_id}"
    times = f"last heartbeat {format_rfc3339(lease.heartbeat_at)}, deadline {format_rfc3339(lease.deadline)}"
    return f"{name} {prediction.describe()}: {times}."
