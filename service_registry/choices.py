"""The enumerations of the domain, each stated once.

They are separate from the models, because the rules of expiry and the SQL fragments use them without Django's models.
"""

from django.db.models import TextChoices


class Status(TextChoices):
    """A status that an instance reports or an override sets. Only `UP` gets traffic."""

    UP = "UP"
    STARTING = "STARTING"
    DOWN = "DOWN"
    OUT_OF_SERVICE = "OUT_OF_SERVICE"


class Scheme(TextChoices):
    """The protocol of an instance's port."""

    HTTP = "http"
    HTTPS = "https"
    GRPC = "grpc"
    GRPCS = "grpcs"
    TCP = "tcp"
    UDP = "udp"


class State(TextChoices):
    """The state of an instance's lease."""

    LIVE = "live"
    PROTECTED = "protected"
    EXPIRED = "expired"


class Health(TextChoices):
    """The health of an instance that is checked. `UNKNOWN` until the first result."""

    UNKNOWN = "unknown"
    PASSING = "passing"
    WARNING = "warning"
    CRITICAL = "critical"


class Judge(TextChoices):
    """A means that takes an instance out of discovery when it fails: its lease, its health check."""

    LEASE = "lease"
    HEALTH_CHECK = "health_check"


class ChangeKind(TextChoices):
    """The kinds of changes in the log."""

    LOG_STARTED = "log_started"
    SERVICE_CREATED = "service_created"
    SERVICE_DELETED = "service_deleted"
    OWNERS_CHANGED = "owners_changed"
    REGISTERED = "registered"
    RECOVERED = "recovered"
    UPDATED = "updated"
    STATUS_CHANGED = "status_changed"
    HEALTH_CHANGED = "health_changed"
    PROTECTED = "protected"
    RELEASED = "released"
    EXPIRED = "expired"
    DEREGISTERED = "deregistered"
    PURGED = "purged"


class Rule(TextChoices):
    """The rules of `expiry.protection` that protect a lease past its deadline."""

    FLEET = "fleet"
    SMALL_FLEET = "small_fleet"
    SERVICE = "service"
    ALL_LATE = "all_late"
