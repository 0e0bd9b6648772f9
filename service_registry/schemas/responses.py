"""What the registry answers."""

from typing import Any

from pydantic import (
    BaseModel,
    Field,
    RootModel,
)

from service_registry.schemas.fields import (
    ChangeKind,
    Scheme,
    State,
    Status,
)
from service_registry.schemas.shape import STRICT


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


class RenewedLease(BaseModel):
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
    kind: ChangeKind
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


class WatchResponse(BaseModel):
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


class RegisterResponse(RootModel[LeasedInstance | Results]):
    """The instance, or one outcome an item of an array."""


class HeartbeatResponse(RootModel[RenewedLease | Results]):
    """The renewed lease, or one outcome an item of an array."""


class Readiness(BaseModel):
    model_config = STRICT
    status: str
    checks: dict[str, Any]
