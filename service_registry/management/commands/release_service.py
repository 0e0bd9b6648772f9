from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from service_registry import manager
from service_registry.exceptions import RegistryError
from service_registry.management.operator import OPERATOR
from service_registry.management.orders import ordered, refused
from service_registry.schemas import ServiceRelease


class Command(BaseCommand):
    help = "Let go what is held in a service past its deadline, and hold nobody there for 15 minutes."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="of the service")
        parser.add_argument("--namespace", default="default")
        parser.add_argument("--reason", required=True, help="kept with the change")

    def handle(self, *, name: str, namespace: str, reason: str, **_: Any) -> None:
        order = ordered(ServiceRelease, {"namespace": namespace, "name": name, "reason": reason})
        (outcome,) = manager.release([order], OPERATOR)
        if isinstance(outcome, RegistryError):
            raise refused(outcome)
        self.stdout.write(
            f"{outcome.protected} protected instances of {namespace}/{name} released: the next sweep expires them."
        )
