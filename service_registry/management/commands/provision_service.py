from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from service_registry import manager
from service_registry.exceptions import RegistryError
from service_registry.management.command_line import OPERATOR, build_order, command_error
from service_registry.schemas import ServiceOwners


class Command(BaseCommand):
    help = "Set the owners of a service; create the service if it does not exist."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name")
        parser.add_argument("--owner", action="append", required=True, metavar="GROUP", help="repeat it for up to 8")
        parser.add_argument("--namespace", default="default")
        parser.add_argument("--reason", help="stored with the change")

    def handle(self, *, name: str, owner: list[str], namespace: str, reason: str | None, **_: Any) -> None:
        order = build_order(ServiceOwners, {"namespace": namespace, "name": name, "owners": owner, "reason": reason})
        (outcome,) = manager.set_owners([order], OPERATOR)
        if isinstance(outcome, RegistryError):
            raise command_error(outcome)
        done = "created with owners" if outcome.created else "has owners"
        self.stdout.write(f"{namespace}/{order.name} {done} {', '.join(outcome.owners)}.")
