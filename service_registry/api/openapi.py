"""The OpenAPI document: the models of `schemas`, the bearer scheme, and every problem an operation may answer with."""

from typing import Any, ClassVar

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiParameter
from pydantic import BaseModel

from service_registry.api.errors import CONTENT_TYPE
from service_registry.schemas import Problem

# Any operation may answer with these; what else it may is in its view's `problems`.
ALWAYS = (400, 401, 403, 405, 500, 503)


class RegistrySchema(AutoSchema):
    """Adds the problems, which the framework's own schema leaves out."""

    def _get_response_bodies(self, direction: Any = "response") -> dict[str, Any]:
        # Where a view states its responses, the framework asks no method that is meant to be replaced.
        view: Any = self.view
        statuses = {*ALWAYS, *getattr(view, "problems", {}).get(getattr(view, "action", None), ())}
        describe: Any = self._get_response_for_code
        problems = {
            str(status): describe(Problem, str(status), [CONTENT_TYPE], direction) for status in sorted(statuses)
        }
        bodies: dict[str, Any] = super()._get_response_bodies(direction)
        return bodies | problems

    def get_tags(self) -> list[str]:
        return [type(self.view).__name__.removesuffix("ViewSet").removesuffix("View").lower()]


def without_last_slashes(result: dict[str, Any], **_context: Any) -> dict[str, Any]:
    """Paths as the contract writes them; the last slash is optional."""
    return result | {"paths": {path.rstrip("/"): operations for path, operations in result["paths"].items()}}


def parameters(model: type[BaseModel], *in_path: str) -> list[OpenApiParameter]:
    """The parameters of an operation, from the model that its path and query are checked against."""
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
