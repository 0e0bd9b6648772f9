"""The health check that an instance asks for."""

from typing import Annotated, Any, Literal, Self

from django.conf import settings
from pydantic import AfterValidator, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from service_registry.schemas.fields import Port, Shape, looks_secret

# Fields of the connection and the message, which the checker sets, and credentials, which an operator would read here.
REFUSED_HEADERS = {
    *("host", "connection", "content-length", "transfer-encoding", "accept-encoding", "upgrade", "te", "expect"),
    *("cookie", "authorization", "proxy-authorization"),
}


def refuse_header(name: str) -> str:
    if name.lower() in REFUSED_HEADERS or looks_secret(name):
        raise PydanticCustomError("header", "is set by the checker, or is a credential, which must not be stored here")
    return name


HeaderName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9!#$%&'*+.^_|~-]{1,64}$"), AfterValidator(refuse_header)
]
HeaderValue = Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]([\x20-\x7e]{0,254}[\x21-\x7e])?$")]
OF_HTTP = {"path", "expected_status", "headers"}
EXPECTED_STATUS = r"^[1-5][0-9]{2}(-[1-5][0-9]{2})?$"


class CheckSettings(Shape):
    """The members of a health check that all readers see."""

    type: Literal["http", "https", "tcp", "grpc"] = Field(
        description="`tcp` connects; `grpc` asks the standard health service grpc.health.v1 for the whole server."
    )
    port: Port | None = Field(default=None, description="The port that is checked; that of the instance without it.")
    interval_seconds: Annotated[int, Field(ge=1, le=3600)] = 10
    timeout_seconds: Annotated[int, Field(ge=1, le=30)] = Field(
        default=2, description="For the whole check. A check ends at its interval in any case."
    )
    healthy_after: Annotated[int, Field(ge=1, le=10)] = Field(
        default=2, description="Better results in a row, until the instance is better."
    )
    unhealthy_after: Annotated[int, Field(ge=1, le=10)] = Field(
        default=3, description="Failures in a row, until the instance is critical."
    )
    expected_status: Annotated[str, StringConstraints(pattern=EXPECTED_STATUS)] = Field(
        default="200-299", description="The HTTP status that passes, or the first and the last of them."
    )
    tls_verify: bool = Field(default=True, description="Check the certificate and its name.")
    renews: bool = Field(default=False, description="A check that passes renews the lease, as a heartbeat does.")


class HealthCheck(CheckSettings):
    """A check of the instance's own host, at an interval."""

    path: Annotated[str, StringConstraints(pattern=r"^/[\x21\x22\x24-\x7e]{0,1023}$")] = Field(
        default="/", description="Path and query of the GET, for `http` and `https`."
    )
    headers: Annotated[dict[HeaderName, HeaderValue], Field(max_length=8)] = Field(
        default={}, description="Headers of the GET, without credentials."
    )

    @model_validator(mode="before")
    @classmethod
    def drop_nulls(cls, document: Any) -> Any:
        """Return the check without its nulls: null in a member that has a default is its absence."""
        if not isinstance(document, dict):
            return document
        return {name: value for name, value in document.items() if value is not None or name not in cls.model_fields}

    @model_validator(mode="after")
    def require_one_kind(self) -> Self:
        """Refuse members of another type; their defaults are accepted, which an export and a read have."""
        if self.type not in {"http", "https"} and self.model_dump(exclude_defaults=True).keys() & OF_HTTP:
            raise PydanticCustomError("health_check", "path, expected_status and headers are for http and https")
        if self.type != "https" and not self.tls_verify:
            raise PydanticCustomError("health_check", "tls_verify can be false for https alone")
        first, _, last = self.expected_status.partition("-")
        if last and int(last) < int(first):
            raise PydanticCustomError("health_check", "expected_status must begin with the lower one")
        return self


def require_networks(check: Any) -> Any:
    if check is not None and not settings.REGISTRY_HEALTH_NETWORKS:
        raise PydanticCustomError(
            "health_check", "is refused: REGISTRY_HEALTH_NETWORKS of this registry names no network to check"
        )
    return check


OptionalHealthCheck = Annotated[HealthCheck | None, AfterValidator(require_networks)]
