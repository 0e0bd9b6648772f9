from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from service_registry import manager
from service_registry.exceptions import RegistryError
from service_registry.management.operator import OPERATOR
from service_registry.management.orders import ordered, refused
from service_registry.schemas import ServiceOwners


class Command(BaseCommand):
    help = "Give a service its owners, and make it when it does not exist."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name")
        parser.add_argument("--owner", action="append", required=True, metavar="GROUP", help="repeatable: up to 8")
        parser.add_argument("--namespace", default="default")
        parser.add_argument("--reason", help="kept with the change")

    def handle(self, *, name: str, owner: list[str], namespace: str, reason: str | None, **_: Any) -> None:
        order = ordered(ServiceOwners, {"namespace": namespace, "name": name, "owners": owner, "reason": reason})
        (outcome,) = manager.set_owners([order], OPERATOR)
        if isinstance(outcome, RegistryError):
            raise refused(outcome)
        done = "was made" if outcome.created else "has these owners now"
        self.stdout.write(f"{namespace}/{name} {done}: {', '.join(outcome.owners)}.")
