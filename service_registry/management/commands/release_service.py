from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from pydantic import ValidationError

from service_registry import manager
from service_registry.caller import Caller
from service_registry.exceptions import RegistryError
from service_registry.schemas import ReleaseOrder

OPERATOR = Caller("system:command", frozenset(), frozenset({"operate_instance"}))


class Command(BaseCommand):
    help = "Let go what is held in a service past its deadline, and hold nobody there for 15 minutes."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="of the service")
        parser.add_argument("--namespace", default="default")
        parser.add_argument("--reason", required=True, help="kept with the change")

    def handle(self, *, name: str, namespace: str, reason: str, **_: Any) -> None:
        (outcome,) = manager.release([order(namespace, name, reason)], OPERATOR)
        if isinstance(outcome, RegistryError):
            raise CommandError(str(outcome))
        self.stdout.write(f"{outcome.held} held instances of {namespace}/{name} released: the next sweep expires them.")


def order(namespace: str, name: str, reason: str) -> ReleaseOrder:
    """Raises CommandError with one sentence."""
    try:
        return ReleaseOrder(namespace=namespace, name=name, reason=reason)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise CommandError(f"{first['loc'][0]} is not right: {first['msg']}.") from error
