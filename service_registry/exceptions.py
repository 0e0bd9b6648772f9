"""The registry's errors: a docstring, a code and data each. HTTP statuses stand in `api/errors.py`."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

FieldErrors = Mapping[str, Sequence[Mapping[str, str]]]


class RegistryError(Exception):
    """Something a caller asked for that the registry will not do. Its text is meant for the caller."""

    code: ClassVar[str]


class InvalidInput(RegistryError):
    """What was sent breaks the contract. `errors` names each field, never what it held."""

    code = "invalid"

    def __init__(
        self, errors: FieldErrors, detail: str = "The request does not keep to the contract; see errors."
    ) -> None:
        super().__init__(detail)
        self.errors = errors

    @classmethod
    def of_field(cls, field: str, code: str, message: str) -> "InvalidInput":
        return cls({field: [{"code": code, "message": message}]})


class OwnerRequired(RegistryError):
    """The caller holds several groups that could own the new service and named none of them."""

    code = "owner_required"

    def __init__(self, groups: Sequence[str]) -> None:
        super().__init__("This registration creates the service; name the group that shall own it in `owner`.")
        self.errors: FieldErrors = {
            "owner": [{"code": "owner_required", "message": f"choose one of {len(groups)} groups"}]
        }


class PermissionMissing(RegistryError):
    """The caller's groups do not grant what the action needs."""

    code = "permission_denied"

    def __init__(self, permission: str) -> None:
        super().__init__(f"None of the caller's groups grants {permission}.")
        self.permission = permission


class NotProvisioned(PermissionMissing):
    """New services are made by an operator here, not by their first registration."""

    def __init__(self) -> None:
        super().__init__("manage_service")
        self.args = ("The service does not exist, and in this registry an operator has to provision it first.",)


class NotOwner(RegistryError):
    """The caller holds none of the service's owner names."""

    code = "not_owner"

    def __init__(self, detail: str = "None of the caller's groups owns this service.") -> None:
        super().__init__(detail)


class QuotaExceeded(RegistryError):
    """The service, or one of its owners, has as many instances as it may have."""

    code = "quota_exceeded"

    def __init__(self, whose: str, limit: int) -> None:
        super().__init__(f"The {whose} has {limit} instances, which is the limit.")


class ClockIsWrong(RegistryError):
    """This process's clock is far off the database's: it would judge tokens wrongly."""

    code = "unavailable"

    def __init__(self) -> None:
        super().__init__("This process's clock differs from the database's; ask another one.")


class TooBusy(RegistryError):
    """More wait for this process than it can serve in time. What was asked for may have been done all the same."""

    code = "unavailable"

    def __init__(self) -> None:
        super().__init__("The registry is too busy; try again.")


class NotMigrated(RegistryError):
    """The database does not hold yet what every migrated one holds."""

    code = "unavailable"

    def __init__(self) -> None:
        super().__init__("The registry's database is not migrated yet; try again.")


class NotLoaded(RegistryError):
    """This process does not have the catalogue in memory: it has just started, or starts over."""

    code = "unavailable"

    def __init__(self) -> None:
        super().__init__("This process is still loading the catalogue; try again.")


class TooManySubscribers(RegistryError):
    """The caller, or all callers together, wait for as many answers of this process as it holds open."""

    code = "rate_limited"
    retry_after_seconds = 5

    def __init__(self, whose: str, limit: int) -> None:
        super().__init__(f"{whose} {limit} watches of this process open, which is the limit.")


class ServiceNotFound(RegistryError):
    """No service of that name."""

    code = "service_not_found"

    def __init__(self) -> None:
        super().__init__("There is no service of this name in this namespace.")


class InstanceNotFound(RegistryError):
    """No such instance. `reason` tells why, and so what the caller should do next."""

    code = "instance_not_found"
    DETAILS: ClassVar[Mapping[str, str]] = {
        "never_registered": "The registry has not known this instance; register it.",
        "purged": "The instance expired and its row has been purged; register it again.",
        "deregistered": "The instance was deregistered; register it again only if it is a new start.",
    }

    def __init__(self, reason: str) -> None:
        super().__init__(self.DETAILS[reason])
        self.reason = reason

    @classmethod
    def after(cls, last: str | None) -> "InstanceNotFound":
        """By the kind of change with which the instance last came or went; None when it never did."""
        return cls({None: "never_registered", "deregistered": "deregistered"}.get(last, "purged"))


class IndexGone(RegistryError):
    """No row of the log has this index: it was trimmed, or lost, or is another registry's."""

    code = "index_gone"

    def __init__(self) -> None:
        super().__init__("The log does not hold this index any more; read the list again, and go on from its index.")


class HistoryGone(RegistryError):
    """The log does not reach back to this moment: it was pruned, or had not begun."""

    code = "history_gone"

    def __init__(self) -> None:
        super().__init__("The log does not reach back to this moment, so nobody can say how things stood.")


class ServiceNotEmpty(RegistryError):
    """A service with instances is not deleted: its callers would be left with them."""

    code = "service_not_empty"

    def __init__(self) -> None:
        super().__init__("The service still has instances, listed or expired; deregister them first.")


class AmbiguousInstance(RegistryError):
    """Several services have an instance of this id."""

    code = "ambiguous_instance"

    def __init__(self, candidates: Sequence[Mapping[str, str]]) -> None:
        super().__init__("Several services have an instance of this id; ask for one of the candidates by service.")
        self.candidates = candidates


class LeaseSuperseded(RegistryError):
    """Another process has registered under this id since."""

    code = "lease_superseded"

    def __init__(self) -> None:
        super().__init__("Another process has taken this instance id since; stop, or register under another id.")


class NotAuthenticated(RegistryError):
    """The request carries no access token."""

    code = "not_authenticated"

    def __init__(self) -> None:
        super().__init__("Send an access token: Authorization: Bearer <JWT>.")


class MethodNotAllowed(RegistryError):
    """The path exists and does not have this method."""

    code = "method_not_allowed"

    def __init__(self) -> None:
        super().__init__("This path does not have this method; see the Allow header.")


class RequestTimeout(RegistryError):
    """The body of a request did not arrive in time."""

    code = "request_timeout"

    def __init__(self, seconds: float) -> None:
        super().__init__(f"The body did not arrive within {seconds:g} s.")


class BodyTooLarge(RegistryError):
    """The body is larger than the registry reads."""

    code = "too_large"

    def __init__(self) -> None:
        super().__init__("A body may have 1 MiB, and a single object 64 KiB.")


class UnsupportedMediaType(RegistryError):
    """The body is compressed, or is not JSON by its media type."""

    code = "unsupported_media_type"

    def __init__(self) -> None:
        super().__init__("The body must be application/json.")


class UnknownHost(RegistryError):
    """The request's Host header names a host that this registry does not serve."""

    code = "unknown_host"

    def __init__(self) -> None:
        super().__init__("This registry does not answer for this host.")
