"""Deny a caller, list denials, or lift those of a caller."""

from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from pydantic import TypeAdapter, ValidationError

from service_registry import manager
from service_registry.access_models import Denial
from service_registry.exceptions import RegistryError
from service_registry.management.command_line import OPERATOR, build_order, command_error, parse_duration
from service_registry.schemas import CallerDenial
from service_registry.schemas.requests import Timestamp


class Command(BaseCommand):
    help = "Deny a subject or an OAuth client: its requests are refused with 403. With --lift, end that; or --list all."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", nargs="?", help="the subject, or SUBJECT@ISSUER as the logs show it")
        parser.add_argument("--client", action="store_true", help="NAME is an OAuth client (azp or client_id)")
        parser.add_argument("--reason", help="kept with the denial")
        end = parser.add_mutually_exclusive_group()
        end.add_argument("--until", help="when the denial ends, as 2026-12-31T23:59:59Z")
        end.add_argument("--for", dest="duration", metavar="DURATION", help="how long, as 90s, 10m, 2h or 7d")
        does = parser.add_mutually_exclusive_group()
        does.add_argument("--lift", action="store_true", help="lift the denials of NAME that are in force")
        does.add_argument("--list", action="store_true", help="list the denials, ended ones too")

    def handle(self, *, name: str | None, client: bool, lift: bool, reason: str | None, **options: Any) -> None:
        if options["list"]:
            return self.list_denials()
        kind = "client" if client else "subject"
        until = read_end(options["until"], options["duration"])
        order = build_order(CallerDenial, {"kind": kind, "name": name, "reason": reason, "until": until})
        return self.lift(order) if lift else self.deny(order)

    def deny(self, order: CallerDenial) -> None:
        outcome = manager.deny(order, OPERATOR)
        if isinstance(outcome, RegistryError):
            raise command_error(outcome)
        self.stdout.write(f"The {outcome} is denied within seconds, {describe_end(outcome)}.")

    def lift(self, order: CallerDenial) -> None:
        name = order.name.removesuffix(f"@{settings.OIDC_ISSUER}")
        outcomes = manager.lift(Denial.objects.in_force().filter(kind=order.kind, name=name), OPERATOR, order.reason)
        lifted = [outcome for outcome in outcomes if isinstance(outcome, Denial)]
        if not lifted:
            raise CommandError(f"No denial of the {order.kind} {name} is in force.")
        self.stdout.write(f"{len(lifted)} denials of the {order.kind} {name} are lifted.")

    def list_denials(self) -> None:
        for denial in Denial.objects.order_by("pk"):
            end = f"lifted by {denial.lifted_by}: {denial.lift_reason}" if denial.lifted_at else describe_end(denial)
            self.stdout.write(
                f"{denial}, by {denial.actor} at {denial.created_at:%Y-%m-%d %H:%M:%S} UTC: {denial.reason} ({end})"
            )


def read_end(until: str | None, duration: str | None) -> datetime | None:
    """Return the end of a denial. Raises CommandError."""
    if duration is not None:
        return datetime.now(UTC) + timedelta(seconds=parse_duration("--for", duration))
    try:
        return None if until is None else TypeAdapter(Timestamp).validate_python(until)
    except ValidationError:
        raise CommandError("--until must be a time as in 2026-12-31T23:59:59Z (RFC 3339).") from None


def describe_end(denial: Denial) -> str:
    return f"until {denial.until:%Y-%m-%d %H:%M:%S} UTC" if denial.until else "until it is lifted"
