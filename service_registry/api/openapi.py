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

    def get_response_serializers(self) -> Any:
        own = super().get_response_serializers()
        responses = own if isinstance(own, dict) else {200: own}
        view: Any = self.view
        statuses = {*ALWAYS, *getattr(view, "problems", {}).get(getattr(view, "action", None), ())}
        return responses | {(status, CONTENT_TYPE): Problem for status in sorted(statuses)}


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
        if name in in_path or not name.endswith(("_name", "_id"))
    ]


class BearerScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "service_registry.api.authentication.BearerAuthentication"
    name = "bearer"
    definition: ClassVar[dict[str, str]] = {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return self.definition
