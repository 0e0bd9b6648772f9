"""Check the settings, as Django system checks registry.E001 to W003.

`manage.py check --deploy` reports all of them. Errors also stop web processes and workers: `require_valid_settings`.
"""

from collections.abc import Iterator
from typing import Any
from urllib.parse import SplitResult, urlsplit

from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage, Error, Tags
from django.core.exceptions import ImproperlyConfigured

from service_registry.expiry.protection import RECENT_EXPIRY_SECONDS
from service_registry.identity.issuer_client import is_trustworthy
from service_registry.identity.key_set import SUPPORTED_ALGORITHMS

# The path that marks the issuer of `make run`: it accepts every login without a password.
DEVELOPMENT_ISSUER_PATH = "/development-issuer"
BROKER_SCHEMES = {"memory", "redis", "rediss", "amqp", "amqps"}
# libpq parses these numbers when it connects, and not before.
NUMERIC_OPTIONS = ("connect_timeout", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout")
WRITABLE_SERVERS = ("primary", "read-write")
SECRET_KEY_CHARACTERS, SECRET_KEY_DISTINCT_CHARACTERS = 50, 10
# An instance has to be off the list within TTL + 10 % + 5 s, and a sweep can begin a second late.
LONGEST_SWEEP_INTERVAL_SECONDS = 4


def require_valid_settings() -> None:
    """Raise ImproperlyConfigured with the first error that the settings have."""
    for error in errors():
        raise ImproperlyConfigured(error.msg)


def errors() -> Iterator[CheckMessage]:
    yield from check_django()
    yield from check_identity()
    yield from check_database(settings.DATABASES["default"])
    yield from check_broker()


@checks.register(Tags.security)
def report_errors(**_: Any) -> list[CheckMessage]:
    return list(errors())


@checks.register(Tags.security, deploy=True)
def report_warnings(**_: Any) -> list[CheckMessage]:
    return list(check_expiry())


def check_django() -> Iterator[CheckMessage]:
    try:
        secret_key = settings.SECRET_KEY
    except ImproperlyConfigured:  # Django refuses an empty one
        secret_key = ""
    weak = not settings.DEBUG and len(set(secret_key)) < SECRET_KEY_DISTINCT_CHARACTERS
    if weak or len(secret_key) < (1 if settings.DEBUG else SECRET_KEY_CHARACTERS):
        yield Error(
            f"SECRET_KEY must be a random secret of {SECRET_KEY_CHARACTERS} or more characters.",
            hint="Generate one and give all processes the same; with DEBUG on it may be shorter.",
            id="registry.E001",
        )
    if not settings.DEBUG and (not settings.ALLOWED_HOSTS or "*" in settings.ALLOWED_HOSTS):
        yield Error(
            "ALLOWED_HOSTS must list the host names of this registry; * is refused with DEBUG off.", id="registry.E002"
        )


def check_identity() -> Iterator[CheckMessage]:
    yield from check_provider_address("OIDC_ISSUER", "registry.E003")
    if settings.OIDC_JWKS_URI:
        yield from check_provider_address("OIDC_JWKS_URI", "registry.E005")
    if not settings.OIDC_AUDIENCE:
        yield Error(
            "OIDC_AUDIENCE must be the name that your provider writes into `aud` for this registry.",
            id="registry.E006",
        )
    elif settings.OIDC_AUDIENCE == settings.OIDC_RP_CLIENT_ID:
        yield Error(
            "OIDC_AUDIENCE must differ from OIDC_RP_CLIENT_ID.",
            hint="ID tokens of the admin's login have the client as audience, and could pass as access tokens.",
            id="registry.E013",
        )
    if not settings.OIDC_ALGORITHMS or set(settings.OIDC_ALGORITHMS) - SUPPORTED_ALGORITHMS:
        supported = ", ".join(sorted(SUPPORTED_ALGORITHMS))
        yield Error(f"OIDC_ALGORITHMS must be one or more of {supported}.", id="registry.E007")


def check_provider_address(name: str, check_id: str) -> Iterator[CheckMessage]:
    address = split_url(getattr(settings, name))
    if not is_trustworthy(address):
        yield Error(f"{name} must be an https address of your OIDC provider (http on loopback only).", id=check_id)
    elif not settings.DEBUG and f"{address.path}/".startswith(f"{DEVELOPMENT_ISSUER_PATH}/"):
        yield Error(f"{name} is the development issuer; with DEBUG off it must be your provider.", id="registry.E004")


def check_database(database: dict[str, Any]) -> Iterator[CheckMessage]:
    options = database.get("OPTIONS", {})
    if not database["NAME"] and "service" not in options:
        yield Error("DATABASE_URL must name a database: postgresql://user:password@host/name.", id="registry.E008")
    if options.get("target_session_attrs") not in WRITABLE_SERVERS:
        yield Error(
            f"DATABASE_URL must give target_session_attrs as {' or '.join(WRITABLE_SERVERS)}.",
            hint="The registry writes, and what a standby says may be old.",
            id="registry.E009",
        )
    wrong = [name for name in NUMERIC_OPTIONS if name in options and not is_whole_number(options[name])]
    if wrong:
        yield Error(f"DATABASE_URL must give {', '.join(wrong)} as a whole number.", id="registry.E010")
    elif not 1 <= int(options.get("connect_timeout", 0)) <= 10:
        yield Error(
            "DATABASE_URL must give connect_timeout as 1 to 10 seconds.",
            hint="A thread that waits for a connection answers no request.",
            id="registry.E011",
        )


def check_broker() -> Iterator[CheckMessage]:
    if split_url(settings.CELERY_BROKER_URL).scheme not in BROKER_SCHEMES:
        yield Error("CELERY_BROKER_URL must be a redis://, rediss://, amqp:// or amqps:// address.", id="registry.E012")


def check_expiry() -> Iterator[CheckMessage]:
    """Yield warnings about values that break the promises of docs/expiry.md."""
    if settings.REGISTRY_SWEEP_INTERVAL_SECONDS > LONGEST_SWEEP_INTERVAL_SECONDS:
        yield checks.Warning(
            "REGISTRY_SWEEP_INTERVAL_SECONDS is too long: dead instances stay on the list beyond TTL + 10 % + 5 s.",
            hint=f"Set it to {LONGEST_SWEEP_INTERVAL_SECONDS} or less.",
            id="registry.W001",
        )
    if settings.REGISTRY_SERVICE_PROTECTION_MAX_SECONDS > settings.REGISTRY_PROTECTION_MAX_SECONDS:
        yield checks.Warning(
            "REGISTRY_SERVICE_PROTECTION_MAX_SECONDS is longer than REGISTRY_PROTECTION_MAX_SECONDS: "
            "the loss of one service is protected for longer than the loss of the whole fleet.",
            id="registry.W002",
        )
    if settings.REGISTRY_RETENTION_SECONDS < RECENT_EXPIRY_SECONDS:
        yield checks.Warning(
            f"REGISTRY_RETENTION_SECONDS is below {RECENT_EXPIRY_SECONDS}: expired instances are purged "
            "before the rules of protection have counted them.",
            id="registry.W003",
        )


def split_url(url: str) -> SplitResult:
    """Return the parts of an address; all are empty when it cannot be parsed."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises ValueError when it is no port number
    except ValueError:
        return urlsplit("")
    return parts


def is_whole_number(value: object) -> bool:
    return str(value).isascii() and str(value).isdigit()
