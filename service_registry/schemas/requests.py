"""What callers send in bodies, and the orders that are made of it."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any

from django.conf import settings
from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    RootModel,
    StringConstraints,
)
from pydantic_core import PydanticCustomError

from service_registry.schemas.fields import (
    Epoch,
    GroupName,
    Host,
    InstanceId,
    Metadata,
    Namespace,
    Port,
    Scheme,
    ServiceName,
    Status,
    Tags,
    TtlSeconds,
    Weight,
    Zone,
    distinct,
)
from service_registry.schemas.shape import ARRAY_LIMIT, STRICT


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


class Heartbeat(BaseModel):
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


def parse_timestamp(value: Any) -> Any:
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
Timestamp = Annotated[datetime, BeforeValidator(parse_timestamp)]


class OverrideRequest(BaseModel):
    """The body that sets an override."""

    model_config = STRICT
    status: Status = Field(description="What shall stand over the status that the instance reports.")
    reason: Reason
    until: Timestamp | None = Field(default=None, description="When it ends by itself; a time in the future.")


class InstanceOverride(BaseModel):
    """An override to set, or with no status to clear."""

    model_config = STRICT
    namespace: Namespace = "default"
    service_name: ServiceName
    instance_id: InstanceId
    status: Status | None = None
    reason: Reason | None = None
    until: datetime | None = None


class OwnersRequest(BaseModel):
    """The body that gives a service its owners."""

    model_config = STRICT
    owners: Annotated[list[GroupName], Field(min_length=1, max_length=8), distinct("owner")] = Field(
        description="The groups whose members may register, renew and deregister its instances."
    )
    reason: Reason | None = Field(default=None, description="Why; kept with the change.")


class ServiceOwners(OwnersRequest):
    """Which service gets which owners."""

    namespace: Namespace = "default"
    name: ServiceName


class ReleaseRequest(BaseModel):
    """The body that releases what is held in a service."""

    model_config = STRICT
    reason: Reason


class ServiceRelease(ReleaseRequest):
    """Which service is released."""

    namespace: Namespace = "default"
    name: ServiceName


class Registrations(RootModel[Registration | Annotated[list[Registration], Field(max_length=ARRAY_LIMIT)]]):
    """One registration, or an array of 1 to 1,000."""


class Heartbeats(RootModel[Heartbeat | Annotated[list[Heartbeat], Field(max_length=ARRAY_LIMIT)]]):
    """One beat, or an array of 1 to 1,000."""


class Deregistrations(RootModel[Deregistration | Annotated[list[Deregistration], Field(max_length=ARRAY_LIMIT)]]):
    """One deregistration, or an array of 1 to 1,000."""
