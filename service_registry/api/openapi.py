"""Generation of the OpenAPI document from the models of `schemas`."""

from typing import Any, ClassVar

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiParameter
from pydantic import BaseModel

from service_registry.http.problems import CONTENT_TYPE
from service_registry.schemas import Problem

# Statuses of problems that every operation may answer with. A view adds its own in `problems`.
COMMON_PROBLEMS = (400, 401, 403, 405, 500, 503)


class RegistrySchema(AutoSchema):
    """Document the problem responses as well; drf-spectacular documents only 2xx."""

    def _get_response_bodies(self, direction: Any = "response") -> dict[str, Any]:
        # drf-spectacular has no public hook for responses beside those that a view states.
        view: Any = self.view
        statuses = {*COMMON_PROBLEMS, *getattr(view, "problems", {}).get(getattr(view, "action", None), ())}
        describe: Any = self._get_response_for_code
        problems = {
            str(status): describe(Problem, str(status), [CONTENT_TYPE], direction) for status in sorted(statuses)
        }
        bodies: dict[str, Any] = super()._get_response_bodies(direction)
        return bodies | problems

    def get_tags(self) -> list[str]:
        return [type(self.view).__name__.removesuffix("ViewSet").removesuffix("View").lower()]


def remove_trailing_slashes(result: dict[str, Any], **_context: Any) -> dict[str, Any]:
    """Return the document with paths without the optional last slash. A post-processing hook of drf-spectacular."""
    return result | {"paths": {path.rstrip("/"): operations for path, operations in result["paths"].items()}}


def parameters(model: type[BaseModel], *in_path: str) -> list[OpenApiParameter]:
    """Return the parameters of an operation, from the model of its path and query.

    `in_path` names those that stand in the path.
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
