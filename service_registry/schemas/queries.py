"""What callers ask by paths and queries."""

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
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
    Index,
    InstanceId,
    MetadataKey,
    Namespace,
    ServiceName,
    State,
    Status,
    Tag,
    WaitSeconds,
    Zone,
)
from service_registry.schemas.requests import Reason, Timestamp
from service_registry.schemas.shape import STRICT


def parse_decimal(value: Any) -> int:
    """A query's number: ASCII digits alone."""
    if not (isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10):
        raise PydanticCustomError("decimal", "must be a whole number in decimal digits")
    return int(value)


Limit = Annotated[int, Field(ge=1, le=500)]


class InstanceFilters(BaseModel):
    """What thins the instances of an answer, as it stands in a query."""

    model_config = STRICT
    status: list[Status | Literal["all"]] | None = Field(default=None, description="Effective statuses, or all.")
    state: list[State | Literal["all"]] | None = Field(default=None, description="States of the lease, or all.")
    protected: Literal["true", "false"] | None = Field(default=None, description="Only protected ones, or none.")
    zone: Zone | None = Field(default=None, description="Where instances run.")
    tag: list[Tag] = Field(default=[], description="Tags that an instance must all have.")
    metadata: dict[MetadataKey, Annotated[str, StringConstraints(max_length=512, pattern=NO_CONTROLS)]] = Field(
        default={}, description="metadata.KEY=VALUE: what an instance's metadata must hold."
    )


class EmptyQuery(BaseModel):
    """The query of an operation that takes no parameters."""

    model_config = STRICT


class ListQuery(InstanceFilters):
    """The query of the list."""

    namespace: Namespace | None = Field(default=None, description="Left out: all.")
    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9._-]{1,128}\*?$|^\*$")] | None = Field(
        default=None, description="A service name, or a prefix that ends in *."
    )
    owner: GroupName | None = Field(default=None, description="A group that owns the services.")
    view: Literal["full", "summary"] = Field(default="full", description="summary leaves the instances out.")
    limit: Annotated[Limit, BeforeValidator(parse_decimal)] = Field(default=100, description="Services a page at most.")
    after: Annotated[str, StringConstraints(max_length=1024)] | None = Field(
        default=None, description="`next` of the page before."
    )
    index: Index | None = Field(default=None, description="The index held: wait for a change after it.")
    wait: WaitSeconds = 30.0

    @field_validator("index")
    @classmethod
    def not_within_a_walk(cls, index: str | None, info: ValidationInfo) -> str | None:
        if index and info.data.get("after"):
            raise PydanticCustomError("index_and_after", "does not go together with after")
        return index


class ChangesQuery(BaseModel):
    """The query of the history."""

    model_config = STRICT
    service: ServiceName | None = Field(default=None, description="The name of one service.")
    instance_id: InstanceId | None = Field(default=None, description="The id of one instance.")
    namespace: Namespace | None = Field(default=None, description="Left out: all.")
    kind: list[ChangeKind] = Field(default=[], description="What happened; repeatable: any of them.")
    actor: Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=NO_CONTROLS)] | None = Field(
        default=None, description="Who did it, as it stands in the changes."
    )
    since: Timestamp | None = Field(default=None, description="From this time on, as in 2026-12-31T23:59:59Z.")
    until: Timestamp | None = Field(default=None, description="Up to and with this time.")
    limit: Annotated[Limit, BeforeValidator(parse_decimal)] = Field(default=100, description="Changes a page at most.")
    after: Annotated[str, StringConstraints(max_length=1024)] | None = Field(
        default=None, description="`next` of the page before."
    )


class DiscoveryQuery(InstanceFilters):
    """The path and query of discovery."""

    name: ServiceName
    namespace: Namespace = "default"
    at: Timestamp | None = Field(default=None, description="A past time: answer as things stood then.")
    index: Index | None = Field(default=None, description="The index held: wait for a change after it.")
    wait: WaitSeconds = 30.0


class WatchQuery(BaseModel):
    """The query of the watch."""

    model_config = STRICT
    service: list[ServiceName] = Field(
        default=[], max_length=500, description="Names of services to watch, one of which must match; none, all."
    )
    namespace: Namespace | None = Field(default=None, description="None, all.")
    index: Index | None = Field(default=None, description="Where to go on from; none, from now.")
    wait: WaitSeconds = 30.0


class ServiceKey(BaseModel):
    """The path and query of an operation on a service whose reason stands in the body."""

    model_config = STRICT
    name: ServiceName
    namespace: Namespace = "default"


class ServiceQuery(ServiceKey):
    """The path and query of an operation on a service."""

    reason: Reason | None = Field(default=None, description="Why; kept with the change.")


class InstanceByIdQuery(BaseModel):
    """The path and query of an instance asked for by its id alone."""

    model_config = STRICT
    namespace: Namespace = "default"
    instance_id: InstanceId


class InstanceQuery(BaseModel):
    """The path and query of an instance."""

    model_config = STRICT
    namespace: Namespace = "default"
    service_name: ServiceName
    instance_id: InstanceId
