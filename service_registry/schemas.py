"""Every shape that goes over the wire, once: what a caller sends, and what the registry answers."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from django.conf import settings
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    RootModel,
    StringConstraints,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from service_registry.fields import (
    NO_CONTROLS,
    Epoch,
    GroupName,
    Host,
    Index,
    InstanceId,
    Kind,
    Metadata,
    MetadataKey,
    Namespace,
    Port,
    Scheme,
    ServiceName,
    State,
    Status,
    Tag,
    Tags,
    TtlSeconds,
    WaitSeconds,
    Weight,
    Zone,
    distinct,
)

STRICT = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)
ARRAY_LIMIT = 1000


class Registration(BaseModel):
    """A full statement of an instance: a field left out, or null, has its default."""

    model_config = STRICT
    namespace: Namespace = "default"
    service_name: ServiceName
    instance_id: InstanceId
    host: Host
    port: Port
    scheme: Scheme = Field(default="http", description="How the port is spoken to.")
    zone: Zone | None = Field(default=None, description="Where the instance runs, for callers that prefer near ones.")
    weight: Weight = 100
    tags: Tags = []
    metadata: Metadata = {}
    ttl_seconds: TtlSeconds = Field(default_factory=lambda: settings.REGISTRY_DEFAULT_TTL_SECONDS)
    status: Status = Field(default="UP", description="What the instance reports of itself.")
    owner: GroupName | None = Field(
        default=None, description="The caller's group that shall own the service, when this registration creates it."
    )


class Beat(BaseModel):
    """The word of an instance that it is still there."""

    model_config = STRICT
    namespace: Namespace = "default"
    service_name: ServiceName
    instance_id: InstanceId
    epoch: Epoch | None = Field(default=None, description="When given, the beat is refused if another process has it.")
    status: Status | None = Field(default=None, description="A new status that the instance reports of itself.")


class Deregistration(BaseModel):
    """The word of an instance, its owner or an operator that it is leaving."""

    model_config = STRICT
    namespace: Namespace = "default"
    service_name: ServiceName
    instance_id: InstanceId
    epoch: Epoch | None = Field(default=None, description="When given, only this registration is taken off.")


RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII)


def future_text(value: Any) -> Any:
    """A time as it is written in JSON (RFC 3339); whether it has passed is for the database to say."""
    try:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None or not RFC_3339.fullmatch(value):
            raise ValueError("not as RFC 3339 has it")
        return moment.astimezone(UTC)
    except (TypeError, ValueError, OverflowError) as error:
        raise PydanticCustomError("time", "must be a time as in 2026-12-31T23:59:59Z (RFC 3339)") from error


Reason = Annotated[
    str,
    StringConstraints(
        min_length=1, max_length=512, pattern=r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"
    ),
    Field(description="Why; kept with the change."),
]
Moment = Annotated[datetime, BeforeValidator(future_text)]


class OverrideStatement(BaseModel):
    """The body that sets an override."""

    model_config = STRICT
    status: Status = Field(description="What shall stand over the status that the instance reports.")
    reason: Reason
    until: Moment | None = Field(default=None, description="When it ends by itself; a time in the future.")


class OverrideOrder(BaseModel):
    """An override to set, or with no status to clear."""

    model_config = STRICT
    namespace: Namespace = "default"
    service_name: ServiceName
    instance_id: InstanceId
    status: Status | None = None
    reason: Reason | None = None
    until: datetime | None = None


class OwnersStatement(BaseModel):
    """The body that gives a service its owners."""

    model_config = STRICT
    owners: Annotated[list[GroupName], Field(min_length=1, max_length=8), distinct("owner")] = Field(
        description="The groups whose members may register, renew and deregister its instances."
    )
    reason: Reason | None = Field(default=None, description="Why; kept with the change.")


class OwnersOrder(OwnersStatement):
    """Which service gets which owners."""

    namespace: Namespace = "default"
    name: ServiceName


class ReleaseStatement(BaseModel):
    """The body that releases what is held in a service."""

    model_config = STRICT
    reason: Reason


class ReleaseOrder(ReleaseStatement):
    """Which service is released."""

    namespace: Namespace = "default"
    name: ServiceName


class Registrations(RootModel[Registration | Annotated[list[Registration], Field(max_length=ARRAY_LIMIT)]]):
    """One registration, or an array of 1 to 1,000."""


class Beats(RootModel[Beat | Annotated[list[Beat], Field(max_length=ARRAY_LIMIT)]]):
    """One beat, or an array of 1 to 1,000."""


class Deregistrations(RootModel[Deregistration | Annotated[list[Deregistration], Field(max_length=ARRAY_LIMIT)]]):
    """One deregistration, or an array of 1 to 1,000."""


class ActiveOverride(BaseModel):
    """An operator's or owner's word over the status. Reason and actor only for those who may see changes."""

    model_config = STRICT
    status: Status
    until: str | None
    reason: str | None = None
    actor: str | None = None


class Instance(BaseModel):
    """An instance as every reader sees it. Nothing in it moves with a heartbeat."""

    model_config = STRICT
    namespace: str
    service_name: str
    instance_id: str
    host: str
    port: int
    scheme: Scheme
    zone: str | None
    weight: int
    tags: list[str]
    metadata: dict[str, str]
    status: Status = Field(description="The effective status: the override's, else the reported one.")
    reported_status: Status
    override: ActiveOverride | None
    state: State
    protected: bool
    ttl_seconds: int
    epoch: int
    registered_at: str
    url: str


class Lease(BaseModel):
    model_config = STRICT
    heartbeat_at: str
    expires_at: str = Field(description="The deadline: 1.1 TTL, and at least TTL + 1 s, after the last heartbeat.")
    heartbeat_interval_seconds: float
    ttl_seconds: int
    epoch: int


class LeasedInstance(Instance):
    """An instance with its lease, and for those who may see changes who registered it."""

    lease: Lease
    registered_by: str | None = None


class Heartbeat(BaseModel):
    model_config = STRICT
    namespace: str
    service_name: str
    instance_id: str
    status: Status
    recovered: bool = Field(default=False, description="True when this beat brought an expired instance back.")
    lease: Lease


class ServiceInstances(BaseModel):
    """Discovery: the instances of one service that should get traffic."""

    model_config = STRICT
    index: str
    namespace: str
    name: str
    owners: list[str]
    protected: bool
    instances: list[Instance]


class ListedService(BaseModel):
    model_config = STRICT
    namespace: str
    name: str
    owners: list[str]
    instance_count: int = Field(description="Live and protected instances.")
    healthy_count: int = Field(description="The instances that discovery would give.")
    protected: bool
    index: str
    instances: list[Instance] | None = Field(default=None, description="Left out of a summary.")


class ServicePage(BaseModel):
    model_config = STRICT
    index: str
    services: list[ListedService]
    next: str | None = Field(description="Where the next page begins: send it back as `after`.")


class Change(BaseModel):
    """A row of the log. Actor, reason and evidence only for those who may see them."""

    model_config = STRICT
    index: str
    at: str
    kind: Kind
    namespace: str | None = Field(description="Null for rows of the log itself.")
    service_name: str | None
    instance_id: str | None = Field(description="Null for a change of a service as a whole.")
    instance: Instance | None = Field(description="As it stood after the change; null where it was taken off.")
    changed: list[str] | None = Field(default=None, description="The fields that the change was about.")
    actor: str | None = None
    reason: str | None = None
    evidence: dict[str, Any] | None = Field(default=None, description="What the registry knew when it did this.")


class ChangePage(BaseModel):
    model_config = STRICT
    changes: list[Change] = Field(description="Newest last.")
    next: str | None = Field(description="Where the next page begins: send it back as `after`.")


class Changes(BaseModel):
    """What came after the index that was sent, oldest first, at most 500. `index` is where to go on from."""

    model_config = STRICT
    index: str
    changes: list[Change]


class Candidate(BaseModel):
    model_config = STRICT
    namespace: str
    service_name: str
    instance_id: str


class FieldError(BaseModel):
    model_config = STRICT
    code: str
    message: str


class OverriddenInstance(BaseModel):
    """What stands over an instance now. The instance is null where none of this id is registered."""

    model_config = STRICT
    namespace: str
    service_name: str
    instance_id: str
    override: ActiveOverride | None
    instance: Instance | None


class OwnedService(BaseModel):
    model_config = STRICT
    namespace: str
    name: str
    owners: list[str]


class ReleasedService(BaseModel):
    model_config = STRICT
    released: int = Field(description="How many were held.")


class Problem(BaseModel):
    """An error (RFC 9457). `code` is stable, and what programs should look at."""

    model_config = STRICT
    type: str
    title: str
    status: int
    code: str
    detail: str
    errors: dict[str, list[FieldError]] | None = None
    permission: str | None = None
    reason: str | None = None
    candidates: list[Candidate] | None = None
    request_id: str


class ItemError(BaseModel):
    """An error of one item of an array: a problem without the fields that belong to the whole answer."""

    model_config = STRICT
    code: str
    detail: str
    errors: dict[str, list[FieldError]] | None = None
    permission: str | None = None
    reason: str | None = None


class ItemResult(BaseModel):
    model_config = STRICT
    status: int
    instance: LeasedInstance | None = None
    lease: Lease | None = None
    error: ItemError | None = None


class Results(BaseModel):
    """One outcome an item, in the order of the array that was sent."""

    model_config = STRICT
    results: list[ItemResult]


class RegisterAnswer(RootModel[LeasedInstance | Results]):
    """The instance, or one outcome an item of an array."""


class HeartbeatAnswer(RootModel[Heartbeat | Results]):
    """The renewed lease, or one outcome an item of an array."""


class Readiness(BaseModel):
    model_config = STRICT
    status: str
    checks: dict[str, Any]


def decimal(value: Any) -> int:
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


class NoQuery(BaseModel):
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
    limit: Annotated[Limit, BeforeValidator(decimal)] = Field(default=100, description="Services a page at most.")
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
    kind: list[Kind] = Field(default=[], description="What happened; repeatable: any of them.")
    actor: Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=NO_CONTROLS)] | None = Field(
        default=None, description="Who did it, as it stands in the changes."
    )
    since: Moment | None = Field(default=None, description="From this time on, as in 2026-12-31T23:59:59Z.")
    until: Moment | None = Field(default=None, description="Up to and with this time.")
    limit: Annotated[Limit, BeforeValidator(decimal)] = Field(default=100, description="Changes a page at most.")
    after: Annotated[str, StringConstraints(max_length=1024)] | None = Field(
        default=None, description="`next` of the page before."
    )


class DiscoveryQuery(InstanceFilters):
    """The path and query of discovery."""

    name: ServiceName
    namespace: Namespace = "default"
    at: Moment | None = Field(default=None, description="A past time: answer as things stood then.")
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


class NamedQuery(BaseModel):
    """The path and query of an operation on a service whose reason stands in the body."""

    model_config = STRICT
    name: ServiceName
    namespace: Namespace = "default"


class ServiceQuery(NamedQuery):
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
