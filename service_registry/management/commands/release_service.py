"""Release a service: end the protection of its instances."""

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from service_registry import manager
from service_registry.exceptions import RegistryError
from service_registry.management.command_line import OPERATOR, build_order, command_error
from service_registry.schemas import ServiceRelease


class Command(BaseCommand):
    help = "Release a service: its protected instances expire, and none is protected there for 15 minutes."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="name of the service")
        parser.add_argument("--namespace", default="default")
        parser.add_argument("--reason", required=True, help="stored with the change")

    def handle(self, *, name: str, namespace: str, reason: str, **_: Any) -> None:
        order = build_order(ServiceRelease, {"namespace": namespace, "name": name, "reason": reason})
        (outcome,) = manager.release([order], OPERATOR)
        if isinstance(outcome, RegistryError):
            raise command_error(outcome)
        self.stdout.write(
            f"{namespace}/{order.name} is released: the next sweep expires its {outcome.protected} protected instances."
        )
