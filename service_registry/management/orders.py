"""From a command line to an order of `schemas`, and from its refusal to a sentence."""

from collections.abc import Mapping
from typing import Any, TypeVar

from django.core.management.base import CommandError
from pydantic import BaseModel, ValidationError

from service_registry.exceptions import RegistryError
from service_registry.schemas.errors import describe_refusal, to_invalid_input

Model = TypeVar("Model", bound=BaseModel)

FLAGS = {"name": "NAME", "owners": "--owner", "service_name": "--service", "silent_for_seconds": "--silent-for"}


def ordered(model: type[Model], fields: Mapping[str, Any]) -> Model:
    """The order that these fields make. Raises CommandError with one sentence, which names the flags."""
    try:
        return model(**fields)
    except ValidationError as error:
        raise refused(to_invalid_input(error)) from error


def refused(refusal: RegistryError) -> CommandError:
    return CommandError(describe_refusal(refusal, flag_of))


def flag_of(field: str) -> str:
    name = field.partition(".")[0]
    return FLAGS.get(name, f"--{name}")
