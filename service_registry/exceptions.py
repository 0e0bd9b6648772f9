"""The registry's errors: their meaning, code and text for the caller.

`http/problems.py` has the HTTP statuses.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

FieldErrors = Mapping[str, Sequence[Mapping[str, str]]]


class RegistryError(Exception):
    """A refusal or failure that a caller can act on."""

    code: ClassVar[str]
    detail: ClassVar[str] = ""

    def __init__(self, detail: str | None = None) -> None:
        super().__init__(self.detail if detail is None else detail)


class InvalidInput(RegistryError):
    """The request breaks the contract. `errors` names each field, and never its value."""

    code = "invalid"
    detail = "The request breaks the contract; see errors."

    def __init__(self, errors: FieldErrors, detail: str | None = None) -> None:
        super().__init__(detail)
        self.errors = errors

    @classmethod
    def of_field(cls, field: str, code: str, message: str) -> "InvalidInput":
        return cls({field: [{"code": code, "message": message}]})


class OwnerRequired(RegistryError):
    """Several groups could own the new service, and the registration names none."""

    code = "owner_required"
    detail = "This registration creates the service; name the group that owns it in `owner`."

    def __init__(self, groups: Sequence[str]) -> None:
        super().__init__()
        message = f"choose one of {len(groups)} groups"
        self.errors: FieldErrors = {"owner": [{"code": "owner_required", "message": message}]}


class PermissionMissing(RegistryError):
    """The caller's groups do not have the permission that the action needs."""

    code = "permission_denied"

    def __init__(self, permission: str, detail: str | None = None) -> None:
        super().__init__(detail or f"None of the caller's groups grants {permission}.")
        self.permission = permission


class CallerDenied(RegistryError):
    """An operator has denied the caller, whose token is valid.

    It is no 401 `invalid_token` (RFC 6750, 3.1): a client would fetch a new token and try again.
    """

    code = "permission_denied"
    reason = "denied"
    detail = "An operator of the registry has denied this caller; a new token does not help."

    def __init__(self, actor: str) -> None:
        super().__init__()
        self.actor = actor


class NotProvisioned(PermissionMissing):
    """The service does not exist, and a registration cannot create it here."""

    detail = "The service does not exist, and in this registry an operator has to provision it first."

    def __init__(self) -> None:
        super().__init__("manage_service", self.detail)


class NotOwner(RegistryError):
    """None of the caller's groups owns the service."""

    code = "not_owner"
    detail = "None of the caller's groups owns this service."


class QuotaExceeded(RegistryError):
    """A service or an owner has reached a limit. The detail names its setting."""

    code = "quota_exceeded"

    def __init__(self, subject: str, limit: int, things: str, setting: str | None = None) -> None:
        source = f" ({setting})" if setting else ""
        super().__init__(f"The {subject} has {limit} {things}, which is the limit{source}.")


class ClockIsWrong(RegistryError):
    """This process's clock is so far off the database's that it misjudges tokens."""

    code = "unavailable"
    detail = "This process's clock differs from the database's; ask another one."


class TooBusy(RegistryError):
    """The queue of this process is longer than it can serve in time.

    The operation may have been done all the same.
    """

    code = "unavailable"
    detail = "The registry is too busy; try again."


class NotMigrated(RegistryError):
    """The database lacks the initial rows of a migrated one."""

    code = "unavailable"
    detail = "The registry's database is not migrated yet; try again."


class NotLoaded(RegistryError):
    """This process has no replica of the catalogue, or is loading it again."""

    code = "unavailable"
    detail = "This process is still loading the catalogue; try again."


class RateLimited(RegistryError):
    """The caller, or all callers together, have too many requests of one kind under way in this process."""

    code = "rate_limited"

    def __init__(self, detail: str, retry_after_seconds: int) -> None:
        super().__init__(detail)
        self.retry_after_seconds = retry_after_seconds


class ServiceNotFound(RegistryError):
    """There is no service of this name."""

    code = "service_not_found"
    detail = "There is no service of this name in this namespace."
    # For discovery: a client may start before the service that it needs.
    MAY_COME: ClassVar[str] = f"{detail} It may register later: try again, or wait for it with ?index=0."


class InstanceNotFound(RegistryError):
    """There is no such instance, for a `reason` that says what the caller has to do."""

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
        """Return the error for an instance that is missing since its `last` change.

        Args:
            last: the kind of the change with which it last came or went; None when it never came.
        """
        return cls({None: "never_registered", "deregistered": "deregistered"}.get(last, "purged"))


class IndexGone(RegistryError):
    """No row of the change log has this index: pruned, lost, or of another registry."""

    code = "index_gone"
    detail = "The log does not contain this index any more; read the list again, and go on from its index."


class HistoryGone(RegistryError):
    """The change log does not reach back to this time: it was pruned, or begins later."""

    code = "history_gone"
    detail = "The log does not reach back to this time, so that the state at this time is not known."


class ServiceNotEmpty(RegistryError):
    """The service has instances. Its deletion would leave callers with them."""

    code = "service_not_empty"
    detail = "The service still has instances, listed or expired; deregister them first."


class AmbiguousInstance(RegistryError):
    """Several services have an instance of this id."""

    code = "ambiguous_instance"
    detail = "Several services have an instance of this id; ask for one of the candidates by service."

    def __init__(self, candidates: Sequence[Mapping[str, str]]) -> None:
        super().__init__()
        self.candidates = candidates


class LeaseSuperseded(RegistryError):
    """Another process has registered under this id since."""

    code = "lease_superseded"
    detail = "Another process has taken this instance id since; stop, or register under another id."


class NotAuthenticated(RegistryError):
    """The request carries no access token."""

    code = "not_authenticated"
    detail = "Send an access token: Authorization: Bearer <JWT>."


class MethodNotAllowed(RegistryError):
    """The path exists and does not have this method."""

    code = "method_not_allowed"
    detail = "This path does not have this method; see the Allow header."


class RequestTimeout(RegistryError):
    """The body of the request did not arrive in time."""

    code = "request_timeout"

    def __init__(self, seconds: float) -> None:
        super().__init__(f"The body did not arrive within {seconds:g} s.")


class HeadTimeout(RegistryError):
    """The headers of the request did not arrive in time."""

    code = "request_timeout"

    def __init__(self, seconds: float) -> None:
        super().__init__(f"The headers did not arrive within {seconds:g} s.")


class HeadersTooLarge(RegistryError):
    """The request has too many headers, or too many bytes of them."""

    code = "headers_too_large"
    detail = "The request line and all headers together may have 32 KiB, and there may be 100 headers."


class MalformedRequest(RegistryError):
    """The request breaks the syntax of HTTP/1.1."""

    code = "invalid"
    detail = "The request breaks the syntax of HTTP/1.1 (RFC 9112)."


class TooManyConnections(RegistryError):
    """This process has as many open connections as it takes."""

    code = "unavailable"
    retry_after_seconds = 5

    def __init__(self, where: str) -> None:
        super().__init__(f"This process has too many open connections {where}; try again.")


class BodyTooLarge(RegistryError):
    """The body exceeds the limit for a body, for a single object, or for a form."""

    code = "too_large"
    detail = "A body may have 1 MiB, and a single object or a form 64 KiB."


class UnsupportedMediaType(RegistryError):
    """The body is not JSON by its media type."""

    code = "unsupported_media_type"
    detail = "The body must be application/json."


class CompressedBody(RegistryError):
    """The body has a content coding."""

    code = "unsupported_media_type"
    detail = "The body must not be compressed."


class UnknownHost(RegistryError):
    """The Host header names a host that this registry does not serve."""

    code = "unknown_host"
    detail = "This registry does not serve this host."
