"""The parameters of paths and queries."""

from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from service_registry.schemas.fields import (
    NO_CONTROLS,
    ChangeKind,
    GroupName,
    HeldIndex,
    Index,
    InstanceId,
    MetadataKey,
    MetadataValue,
    Namespace,
    ServiceName,
    Shape,
    State,
    Status,
    Tag,
    WaitSeconds,
    Zone,
)
from service_registry.schemas.requests import InstanceKey, Reason, ServiceKey, Timestamp


def parse_decimal(value: Any) -> int:
    """Return a number of ASCII digits."""
    if not (isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10):
        raise PydanticCustomError("decimal", "must be a whole number in decimal digits")
    return int(value)


Limit = Annotated[int, Field(ge=1, le=500)]


class InstanceFilters(Shape):
    """The query parameters that select instances."""

    status: list[Status | Literal["all"]] | None = Field(default=None, description="Effective statuses, or all.")
    state: list[State | Literal["all"]] | None = Field(default=None, description="States of the lease, or all.")
    protected: Literal["true", "false"] | None = Field(
        default=None, description="true: only protected instances; false: none of them."
    )
    zone: Zone | None = Field(default=None, description="The zone in which instances run.")
    tag: list[Tag] = Field(default=[], description="A tag that instances must have; repeatable: all of them.")
    metadata: dict[MetadataKey, MetadataValue] = Field(
        default={}, description="metadata.KEY=VALUE: an entry that the metadata of instances must have."
    )


class EmptyQuery(Shape):
    """The query of an operation without parameters."""


class ListQuery(InstanceFilters):
    """The query of the list."""

    namespace: Namespace | None = Field(default=None, description="One namespace; without it, all.")
    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]{1,128}\*?$|^\*$", to_lower=True)] | None = Field(
        default=None, description="A service name, or a prefix followed by *. Upper case becomes lower case."
    )
    owner: GroupName | None = Field(default=None, description="A group that owns the services.")
    view: Literal["full", "summary"] = Field(default="full", description="summary: without the instances.")
    limit: Annotated[Limit, BeforeValidator(parse_decimal)] = Field(
        default=100, description="The most services in a page."
    )
    after: Annotated[str, StringConstraints(max_length=1024)] | None = Field(
        default=None, description="`next` of the previous page."
    )
    index: HeldIndex | None = Field(
        default=None, description="The index of an earlier response, or 0: wait for a change after it."
    )
    wait: WaitSeconds = 30.0

    @field_validator("index")
    @classmethod
    def refuse_index_with_after(cls, index: str | None, info: ValidationInfo) -> str | None:
        if index and info.data.get("after"):
            raise PydanticCustomError("index_and_after", "does not go together with after")
        return index


class ChangesQuery(Shape):
    """The query of the history."""

    service: ServiceName | None = Field(default=None, description="The name of a service.")
    instance_id: InstanceId | None = Field(default=None, description="The id of an instance.")
    namespace: Namespace | None = Field(default=None, description="One namespace; without it, all.")
    kind: list[ChangeKind] = Field(default=[], description="A kind of change; repeatable: any of them.")
    actor: Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=NO_CONTROLS)] | None = Field(
        default=None, description="The actor of the changes."
    )
    since: Timestamp | None = Field(default=None, description="The earliest time, as in 2026-12-31T23:59:59Z.")
    until: Timestamp | None = Field(default=None, description="The latest time.")
    limit: Annotated[Limit, BeforeValidator(parse_decimal)] = Field(
        default=100, description="The most changes in a page."
    )
    after: Annotated[str, StringConstraints(max_length=1024)] | None = Field(
        default=None, description="`next` of the previous page."
    )


class DiscoveryQuery(InstanceFilters):
    """The path and query of discovery."""

    name: ServiceName
    namespace: Namespace = "default"
    at: Timestamp | None = Field(default=None, description="A past time: the instances as they were then.")
    index: HeldIndex | None = Field(
        default=None, description="The index of an earlier response, or 0: wait for a change after it."
    )
    wait: WaitSeconds = 30.0


class WatchQuery(Shape):
    """The query of the watch."""

    service: list[ServiceName] = Field(
        default=[], max_length=500, description="A service to watch; repeatable; without it, all services."
    )
    namespace: Namespace | None = Field(default=None, description="One namespace; without it, all.")
    index: Index | None = Field(
        default=None, description="The index after which changes are wanted; without it, from now on."
    )
    wait: WaitSeconds = 30.0


class ServiceQuery(ServiceKey):
    """The path and query of an operation on a service, with a reason."""

    reason: Reason | None = Field(default=None, description="The reason, kept with the change.")


class InstanceByIdQuery(Shape):
    """The path and query of an instance by its id alone."""

    namespace: Namespace = "default"
    instance_id: InstanceId


class ClearOverrideQuery(InstanceKey):
    """The path and query of the clearing of an override, with a reason."""

    reason: Reason | None = Field(default=None, description="The reason, kept with the change.")


class InstanceQuery(InstanceKey):
    """The path and query of an instance."""


class ServiceHealthQuery(ServiceKey):
    """The path and query of the health of a service."""

    require: Annotated[Annotated[int, Field(ge=0, le=10_000)], BeforeValidator(parse_decimal)] = Field(
        default=0, description="The number of instances that must be healthy: with fewer the answer is 503."
    )


class InstanceHealthQuery(InstanceKey):
    """The path and query of the health of an instance."""

    require: Annotated[Annotated[int, Field(ge=0, le=1)], BeforeValidator(parse_decimal)] = Field(
        default=0, description="1: the answer is 503 where the instance should get no traffic."
    )
