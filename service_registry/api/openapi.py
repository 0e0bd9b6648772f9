"""Generation of the OpenAPI document from the models of `schemas`."""

from typing import Any, ClassVar

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiParameter
from pydantic import BaseModel

from service_registry.http.problems import CONTENT_TYPE
from service_registry.schemas import Problem

# Statuses of the problems that every operation may answer with.
COMMON_PROBLEMS = (400, 401, 403, 405, 429, 500, 503)


def problems(*statuses: int) -> dict[tuple[int, str], type[Problem]]:
    """Return the problem responses of an operation, for `extend_schema`.

    They are those of every operation, and `statuses`.
    """
    return {(status, CONTENT_TYPE): Problem for status in sorted({*COMMON_PROBLEMS, *statuses})}


class RegistrySchema(AutoSchema):
    """Group the operations by their viewset."""

    def get_tags(self) -> list[str]:
        return [type(self.view).__name__.removesuffix("ViewSet").removesuffix("View").lower()]


def remove_trailing_slashes(result: dict[str, Any], **_context: Any) -> dict[str, Any]:
    """Return the document with paths without the optional last slash.

    A post-processing hook of drf-spectacular.
    """
    return result | {"paths": {path.rstrip("/"): operations for path, operations in result["paths"].items()}}


def parameters(model: type[BaseModel], *in_path: str) -> list[OpenApiParameter]:
    """Return the parameters of an operation, from the model of its path and query.

    `in_path` names those in the path.
    """
    properties = model.model_json_schema()["properties"]
    return [
        OpenApiParameter(
            name,
            type={key: value for key, value in schema.items() if key not in {"title", "description"}},
            location=OpenApiParameter.PATH if name in in_path else OpenApiParameter.QUERY,
            required=name in in_path,
            description=schema.get("description", ""),
        )
        for name, schema in properties.items()
    ]


class BearerScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "service_registry.api.authentication.BearerAuthentication"
    name = "bearer"
    definition: ClassVar[dict[str, str]] = {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return self.definition
