"""Request bodies, and the items that the operations take."""

import re
import unicodedata
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from django.conf import settings
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    RootModel,
    StringConstraints,
    ValidationInfo,
)
from pydantic_core import PydanticCustomError

from service_registry.schemas.fields import (
    ARRAY_LIMIT,
    Epoch,
    GroupName,
    Host,
    Incarnation,
    InstanceId,
    Metadata,
    Namespace,
    Port,
    Scheme,
    ServiceName,
    Shape,
    Status,
    Tags,
    TtlSeconds,
    Weight,
    Zone,
    refuse_repeats,
)
from service_registry.schemas.health import HealthCheck, OptionalHealthCheck


class InstanceKey(Shape):
    """The namespace, service and id of an instance."""

    namespace: Namespace = "default"
    service_name: ServiceName
    instance_id: InstanceId


class ServiceKey(Shape):
    """The namespace and name of a service."""

    name: ServiceName
    namespace: Namespace = "default"


def complete_ttl(ttl_seconds: int | None, info: ValidationInfo) -> int | None:
    """Return the TTL of a lease, by default that of the settings, or None for a permanent instance."""
    if info.data.get("lease") != "none":
        return settings.REGISTRY_DEFAULT_TTL_SECONDS if ttl_seconds is None else ttl_seconds
    if ttl_seconds is not None:
        raise PydanticCustomError("permanent", "must be absent with lease none: a permanent instance has no TTL")
    return None


def refuse_renewal(check: HealthCheck | None, info: ValidationInfo) -> HealthCheck | None:
    if check and check.renews and info.data.get("lease") == "none":
        raise PydanticCustomError("permanent", "renews must be false with lease none: there is no lease to renew")
    return check


class Registration(InstanceKey):
    """The complete description of an instance. A field that is absent or null has its default."""

    host: Host
    port: Port
    scheme: Scheme = Field(default="http", description="The protocol on the port.")
    zone: Zone | None = Field(
        default=None, description="The zone in which the instance runs, for callers that prefer a near one."
    )
    weight: Weight = 100
    tags: Tags = []
    metadata: Metadata = {}
    lease: Literal["none"] | None = Field(
        default=None,
        description="`none`: the instance is permanent, and leaves by deregistration alone. Otherwise it has a TTL.",
    )
    ttl_seconds: Annotated[TtlSeconds | None, AfterValidator(complete_ttl)] = Field(
        default=None,
        validate_default=True,
        description="The TTL of the lease: seconds without a heartbeat until it can expire. Not with `lease`.",
    )
    status: Status = Field(default="UP", description="The status that the instance reports.")
    owner: GroupName | None = Field(
        default=None, description="The caller's group that owns the service, when this registration creates it."
    )
    incarnation: Incarnation | None = Field(
        default=None,
        description="A text that the process chooses once at its start, such as a UUID. Another one is another epoch.",
    )
    health_check: Annotated[OptionalHealthCheck, AfterValidator(refuse_renewal)] = Field(
        default=None, description="Have the registry check the instance. Absent or null: no check."
    )


class Heartbeat(InstanceKey):
    """A heartbeat, by which an instance renews its lease."""

    epoch: Epoch | None = Field(default=None, description="Refuse the heartbeat unless this is the current epoch.")
    incarnation: Incarnation | None = Field(
        default=None, description="Refuse the heartbeat unless this is the incarnation that is registered."
    )
    status: Status | None = Field(default=None, description="A new status that the instance reports.")


class Deregistration(InstanceKey):
    """The deregistration of an instance by itself, its owner or an operator."""

    epoch: Epoch | None = Field(default=None, description="Refuse the deregistration unless this is the current epoch.")
    incarnation: Incarnation | None = Field(
        default=None, description="Refuse the deregistration unless this is the incarnation that is registered."
    )


RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII)


def parse_timestamp(value: Any) -> Any:
    """Return a time in UTC from RFC 3339. Whether it has passed is decided by the database's clock."""
    try:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None or not RFC_3339.fullmatch(value):
            raise ValueError("not RFC 3339")
        return moment.astimezone(UTC)
    except (TypeError, ValueError, OverflowError) as error:
        raise PydanticCustomError("time", "must be a time as in 2026-12-31T23:59:59Z (RFC 3339)") from error


def refuse_invisible(reason: str) -> str:
    """Refuse a reason of characters that show nothing, such as zero-width spaces."""
    if all(unicodedata.category(character) in {"Cf", "Zs", "Zl", "Zp"} for character in reason):
        raise PydanticCustomError("blank", "must contain a visible character")
    return reason


Reason = Annotated[
    str,
    StringConstraints(
        min_length=1, max_length=512, pattern=r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"
    ),
    AfterValidator(refuse_invisible),
    Field(description="The reason, kept with the change."),
]
Timestamp = Annotated[datetime, BeforeValidator(parse_timestamp)]


class OverrideRequest(Shape):
    """The body that sets an override."""

    status: Status = Field(description="The status in place of the reported one.")
    reason: Reason
    until: Timestamp | None = Field(default=None, description="When the override ends; a time in the future.")


class InstanceOverride(InstanceKey):
    """An override to set, or to clear when `status` is None."""

    status: Status | None = None
    reason: Reason | None = None
    until: datetime | None = None


class OwnersRequest(Shape):
    """The body that sets the owners of a service."""

    owners: Annotated[list[GroupName], Field(min_length=1, max_length=8), refuse_repeats("owner")] = Field(
        description="The groups whose members may register, renew and deregister its instances."
    )
    reason: Reason | None = Field(default=None, description="The reason, kept with the change.")


class ServiceOwners(OwnersRequest, ServiceKey):
    """A service with the owners to set."""


class ReleaseRequest(Shape):
    """The body that ends the protection of a service."""

    reason: Reason


class ServiceRelease(ReleaseRequest, ServiceKey):
    """A service to release."""


class CallerDenial(Shape):
    """The denial of a subject or of an OAuth client."""

    kind: Literal["subject", "client"] = "subject"
    name: Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")]
    reason: Reason
    until: datetime | None = None


class Registrations(RootModel[Registration | Annotated[list[Registration], Field(max_length=ARRAY_LIMIT)]]):
    """One registration, or an array of 1 to 1,000."""


class Heartbeats(RootModel[Heartbeat | Annotated[list[Heartbeat], Field(max_length=ARRAY_LIMIT)]]):
    """One heartbeat, or an array of 1 to 1,000."""


class Deregistrations(RootModel[Deregistration | Annotated[list[Deregistration], Field(max_length=ARRAY_LIMIT)]]):
    """One deregistration, or an array of 1 to 1,000."""
