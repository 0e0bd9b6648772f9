"""Response bodies."""

from typing import Any, Literal

from pydantic import (
    Field,
    RootModel,
)

from service_registry.schemas.fields import (
    ChangeKind,
    Health,
    Judge,
    Scheme,
    Shape,
    State,
    Status,
)
from service_registry.schemas.health import CheckSettings


class ActiveOverride(Shape):
    """An override in force. Reason and actor are only for callers who may read changes."""

    status: Status
    until: str | None
    reason: str | None = None
    actor: str | None = None


class Instance(Shape):
    """An instance as all readers see it. A heartbeat changes nothing in it."""

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
    status: Status = Field(
        description="The effective status: of the override, else DOWN with critical health, else the reported one."
    )
    reported_status: Status
    health: Health | None = Field(description="The health by the registry's checks; null without a health check.")
    override: ActiveOverride | None
    state: State
    protected: bool
    ttl_seconds: int | None = Field(description="Null for a permanent instance.")
    epoch: int
    registered_at: str
    url: str


class Lease(Shape):
    """The lease of an instance. A permanent instance has no deadline, no interval and no TTL."""

    heartbeat_at: str
    expires_at: str | None = Field(
        description="The deadline: 1.1 TTL, and at least TTL + 1 s, after the last heartbeat."
    )
    heartbeat_interval_seconds: float | None
    ttl_seconds: int | None
    epoch: int


class LeasedInstance(Instance):
    """An instance with its lease."""

    lease: Lease


class RenewedLease(Shape):
    namespace: str
    service_name: str
    instance_id: str
    status: Status
    recovered: bool = Field(default=False, description="True when this heartbeat brought back an expired instance.")
    lease: Lease


class LastCheck(Shape):
    """The last result of an instance's health check."""

    checked_at: str
    level: Health = Field(description="passing, warning or critical; `health` follows after several in a row.")
    cause: str = Field(description="Such as ok, timeout or unexpected_status. More may be added.")
    seconds: float = Field(description="The duration of the check.")


class LastCheckDetails(LastCheck):
    """The last result with what the target answered. `output` is only for owners and operators."""

    output: str | None = Field(
        default=None, description="The first 4 KiB of the answer, or what happened instead, without control characters."
    )


class ShownHealthCheck(CheckSettings):
    """A health check as registered, with its defaults. `path` and `headers` are only for owners and operators."""

    path: str | None = None
    headers: dict[str, str] | None = None


class InstanceDetails(LeasedInstance):
    """An instance with its lease and its health check. `registered_by` is only for callers who may read changes."""

    judged_by: list[Judge] = Field(
        description="The means that take the instance out of discovery when it fails. Empty: nothing judges it."
    )
    registered_by: str | None = None
    health_check: ShownHealthCheck | None
    last_check: LastCheckDetails | None = Field(description="Null without a result of this epoch.")


class InstanceHealth(Shape):
    """The health of an instance, and why it should get no traffic."""

    instance_id: str
    healthy: bool = Field(description="True when it should get traffic: status UP, live or protected.")
    reason: Literal["expired", "override", "reported", "health"] | None = Field(
        description="The reason to send it no traffic: its lease, an override, its own report, or critical health."
    )
    status: Status
    reported_status: Status
    health: Health | None = Field(description="The health by the registry's checks; null without a health check.")
    state: State
    flapping: bool = Field(description="It comes up again only after a minute of better results.")
    since: str | None = Field(
        description="Time of the last change of status, health or state; null where that is older than the change log."
    )
    last_check: LastCheck | None = Field(description="Null without a result of this epoch.")


class ShownInstanceHealth(InstanceHealth):
    """The health of one instance."""

    index: str
    namespace: str
    service_name: str


class ServiceHealth(Shape):
    """The health of a service as numbers of instances, which overlap: a protected one may be healthy and warning."""

    index: str
    namespace: str
    name: str
    healthy: int = Field(description="Instances that should get traffic: status UP, live or protected.")
    warning: int = Field(description="Live and protected instances with the health `warning`.")
    critical: int = Field(description="Live and protected instances with the health `critical`.")
    unknown: int = Field(description="Live and protected instances with a check and no result yet.")
    protected: int
    expired: int
    total: int
    instances: list[InstanceHealth] = Field(description="The first 100 that are not healthy, expired ones last.")
    truncated: bool = Field(description="True when more than these are not healthy.")


class ServiceInstances(Shape):
    """The instances of one service that should get traffic."""

    index: str
    namespace: str
    name: str
    owners: list[str]
    protected: bool
    instances: list[Instance]


class ListedService(Shape):
    namespace: str
    name: str
    owners: list[str]
    instance_count: int = Field(description="Live and protected instances.")
    healthy_count: int = Field(description="The instances that should get traffic.")
    protected: bool
    index: str
    instances: list[Instance] | None = Field(default=None, description="Absent in a summary.")


class ServicePage(Shape):
    index: str
    services: list[ListedService]
    next: str | None = Field(description="The cursor of the next page: send it as `after`.")


class Change(Shape):
    """A row of the change log. Actor, reason and evidence are for owners at its time, and for operators."""

    index: str
    at: str
    kind: ChangeKind
    namespace: str | None = Field(description="Null for `log_started`.")
    service_name: str | None
    instance_id: str | None = Field(description="Null for a change of a service as a whole.")
    instance: Instance | None = Field(
        description="The instance after the change; null when it is no longer registered."
    )
    changed: list[str] | None = Field(default=None, description="The fields that changed.")
    actor: str | None = None
    reason: str | None = None
    evidence: dict[str, Any] | None = Field(default=None, description="The facts on which the registry decided.")


class ChangePage(Shape):
    changes: list[Change] = Field(description="Newest last.")
    next: str | None = Field(description="The cursor of the next page: send it as `after`.")


class WatchResponse(Shape):
    """The changes after the index of the query, oldest first, at most 500. Continue from `index`."""

    index: str
    changes: list[Change]


class Candidate(Shape):
    namespace: str
    service_name: str
    instance_id: str


class FieldError(Shape):
    code: str
    message: str


class OverriddenInstance(Shape):
    """The override in force. The instance is null where none of this id is registered."""

    namespace: str
    service_name: str
    instance_id: str
    override: ActiveOverride | None
    instance: Instance | None


class OwnedService(Shape):
    namespace: str
    name: str
    owners: list[str]


class ReleasedService(Shape):
    released: int = Field(description="The number of protected instances.")


class Problem(Shape):
    """An error (RFC 9457). `code` is stable: programs should read it."""

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


class ItemError(Shape):
    """The error of one item of an array: a problem without the fields of the whole response."""

    code: str
    detail: str
    errors: dict[str, list[FieldError]] | None = None
    permission: str | None = None
    reason: str | None = None


class ItemResult(Shape):
    status: int
    instance: LeasedInstance | None = None
    lease: Lease | None = None
    error: ItemError | None = None


class Results(Shape):
    """One outcome per item, in the order of the request."""

    results: list[ItemResult]


class RegisterResponse(RootModel[LeasedInstance | Results]):
    """The instance, or one outcome per item of an array."""


class HeartbeatResponse(RootModel[RenewedLease | Results]):
    """The renewed lease, or one outcome per item of an array."""
