"""From what was sent to the models of `schemas`; errors name fields and never what they held."""

import functools
from typing import Any, TypeVar

from django.http import QueryDict
from pydantic import BaseModel, TypeAdapter, ValidationError

from service_registry.exceptions import InvalidInput
from service_registry.schemas import ARRAY_LIMIT
from service_registry.schemas.errors import field_path, to_invalid_input

Model = TypeVar("Model", bound=BaseModel)


def without_nulls(model: type[BaseModel], document: Any) -> Any:
    """Null in an optional field is its absence; in a required one it is missing."""
    if not isinstance(document, dict) or None not in document.values():
        return document
    return {name: value for name, value in document.items() if value is not None or name not in model.model_fields}


def validate_one(model: type[Model], document: Any) -> Model:
    """The model of one object. Raises InvalidInput."""
    try:
        return model.model_validate(without_nulls(model, document))
    except ValidationError as error:
        raise to_invalid_input(error) from error


def validate_many(model: type[Model], documents: list[Any]) -> list[Model | InvalidInput]:
    """The models of an array, each with its own verdict. Raises InvalidInput when the array itself is too long."""
    if not 1 <= len(documents) <= ARRAY_LIMIT:
        raise InvalidInput.of_field("body", "array_length", f"an array must have 1 to {ARRAY_LIMIT} items")
    documents = [without_nulls(model, document) for document in documents]
    try:
        return [*adapter_of(model).validate_python(documents)]
    except ValidationError:
        return [verdict(model, document) for document in documents]


@functools.cache
def adapter_of(model: type[Model]) -> TypeAdapter[list[Model]]:
    """There are as many as verbs, and making one costs as much as reading an array."""
    return TypeAdapter(list[model])  # type: ignore[valid-type]


def verdict(model: type[Model], document: Any) -> Model | InvalidInput:
    try:
        return model.model_validate(document)
    except ValidationError as error:
        return to_invalid_input(error)


def validate_query(model: type[Model], query: QueryDict, **more: Any) -> Model:
    """The model of a query string and of `more` from the path; only list fields may stand more than once."""
    repeatable = {name for name, field in model.model_fields.items() if "list" in str(field.annotation)}
    document: dict[str, Any] = dict(more)
    for name, values in query.lists():
        if name in more or name == "metadata":
            raise InvalidInput.of_field(field_path([name]), "extra_forbidden", "is no parameter")
        if name not in repeatable and len(values) > 1:
            raise InvalidInput.of_field(field_path([name]), "repeated", "must stand once")
        if name.startswith("metadata."):
            document.setdefault("metadata", {})[name.removeprefix("metadata.")] = values[0]
        else:
            document[name] = values if name in repeatable else values[0]
    return validate_one(model, document)
