"""The fields on the wire, their limits, and the base of the shapes made of them."""

import functools
import ipaddress
import re
from itertools import pairwise
from typing import Annotated, Any, LiteralString

from django.conf import settings
from django.db.models import TextChoices
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, GetPydanticSchema, StringConstraints
from pydantic_core import PydanticCustomError, core_schema

from service_registry import choices


def one_of(enumeration: type[TextChoices]) -> GetPydanticSchema:
    """Accept the values of an enumeration alone.

    They stay strings, so that JSON and SQL take them as they are.
    """
    return GetPydanticSchema(lambda _source, _handler: core_schema.literal_schema(enumeration.values))


Status = Annotated[str, one_of(choices.Status)]
Scheme = Annotated[str, one_of(choices.Scheme)]
Health = Annotated[str, one_of(choices.Health)]
Judge = Annotated[str, one_of(choices.Judge)]
State = Annotated[str, one_of(choices.State)]
ChangeKind = Annotated[str, one_of(choices.ChangeKind)]

ARRAY_LIMIT = 1000


# Behind a name, pydantic's mypy plugin does not see `strict`, and does not refuse the strings that queries are made of.
STRICT = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)


class Shape(BaseModel):
    """The base of all shapes on the wire."""

    model_config = STRICT


NO_INDEX = "0"
INDEX = re.compile(r"[0-9a-f]{8}-([1-9][0-9]{0,18})", re.ASCII)
DURATION = re.compile(r"([0-9]{1,7})(ms|s|m)", re.ASCII)
UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0}
MAX_WAIT_SECONDS = 300.0

NO_CONTROLS = r"^[^\x00-\x1f\x7f-\x9f]*$"


def refuse_double_dot(name: str) -> str:
    if ".." in name:
        raise PydanticCustomError("double_dot", "must not contain two dots in a row")
    return name


# Printable ASCII without what breaks out of quotes in shells, logs and queries.
INSTANCE_ID = r"^[A-Za-z0-9][!#-&(-\[\]-~]{0,254}$"

Namespace = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"),
    Field(description="The namespace in which the name of the service is unique."),
]
ServiceName = Annotated[
    str,
    # The pattern is applied first: no letter outside ASCII becomes one inside.
    StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._:-]{0,126}[A-Za-z0-9])?$", to_lower=True),
    AfterValidator(refuse_double_dot),
    Field(description="The name of the service. Upper case becomes lower case."),
]
InstanceId = Annotated[
    str,
    StringConstraints(pattern=INSTANCE_ID),
    Field(description="The id of the instance, which it chooses; unique within the service. Percent-encoded in paths."),
]
GroupName = Annotated[
    str,
    StringConstraints(min_length=1, max_length=255, pattern=NO_CONTROLS),
    Field(description="The name of a group, as in the callers' tokens."),
]

# Names of containers and of Windows machines have underscores, which RFC 1123 does not know.
HOST_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
HOST_CHARACTERS = 253
NUMBER_LIKE = re.compile(r"[0-9]+|0x[0-9a-f]*")
BROADCAST = ipaddress.IPv4Address("255.255.255.255")


# Instances register the same hosts and metadata keys again and again. To parse them took a third of a validation.
@functools.lru_cache(maxsize=4096)
def canonicalize_host(host: str) -> str:
    """Return an IP address in canonical form (RFC 5952), or a host name in lower case.

    A trailing dot is dropped, and a v4-mapped IPv6 address becomes IPv4. Names that resolvers read as numbers (`127.1`,
    `0x7f.1`) are refused, so that an address has one spelling, and so are addresses that no caller can connect to.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return canonicalize_host_name(host)
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id:
            raise PydanticCustomError("host", "an IPv6 address must not carry a zone id")
        address = address.ipv4_mapped or address
    if address.is_unspecified or address.is_multicast or address == BROADCAST:
        raise PydanticCustomError("host", "must not be an unspecified, multicast or broadcast address")
    return str(address)


def canonicalize_host_name(host: str) -> str:
    name = host.lower().removesuffix(".")
    labels = name.split(".")
    if not host.isascii() or len(name) > HOST_CHARACTERS or not all(map(HOST_LABEL.fullmatch, labels)):
        raise PydanticCustomError(
            "host", "must be an IP address or a host name of letters, digits, hyphens and underscores"
        )
    if NUMBER_LIKE.fullmatch(labels[-1]):
        raise PydanticCustomError("host", "a host name must not end in a number")
    return name


Host = Annotated[
    str,
    StringConstraints(min_length=1, max_length=HOST_CHARACTERS + 1),  # with its trailing dot
    AfterValidator(canonicalize_host),
    Field(description="The IPv4 address, IPv6 address or host name on which the instance listens."),
]
Port = Annotated[int, Field(ge=1, le=65535, description="The port on which the instance listens.")]
Zone = Annotated[
    str,
    StringConstraints(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+$"),
    Field(description="The zone in which the instance runs, for callers that prefer a near one."),
]
Weight = Annotated[int, Field(ge=0, le=65535, description="The share of traffic relative to the other instances.")]
TtlSeconds = Annotated[int, Field(ge=5, le=86400)]
Epoch = Annotated[int, Field(ge=1, le=2**53, description="The epoch from the response to the registration.")]
Incarnation = Annotated[
    str,
    StringConstraints(pattern=r"^[\x20-\x7e]{1,64}$"),
    Field(description="A text that the process of the instance chooses once at its start, such as a UUID."),
]


def refuse_repeats(what: LiteralString) -> AfterValidator:
    def check(texts: list[str]) -> list[str]:
        if len(set(texts)) != len(texts):
            raise PydanticCustomError("not_distinct", f"must not contain the same {what} twice")
        return texts

    return AfterValidator(check)


Tag = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[\x20-\x7e]+$")]
Tags = Annotated[
    list[Tag],
    Field(max_length=64, description="Distinct strings by which callers select instances; their order is kept."),
    refuse_repeats("tag"),
]

METADATA_VALUE_BYTES = 2 * 1024
METADATA_BYTES = 16 * 1024
SECRET_ENDINGS = (
    *("password", "passwd", "pwd", "secret", "token", "apikey", "credential", "credentials", "authorization"),
)
SECRET_NEIGHBOURS = {("api", "key"), ("private", "key"), ("access", "key")}
REDACTED = "[redacted]"


@functools.lru_cache(maxsize=4096)
def looks_secret(key: str) -> bool:
    """Return whether a metadata key names a secret, which every reader would see."""
    parts = re.split(r"[._:/@-]", key.lower())
    return any(part.endswith(SECRET_ENDINGS) for part in parts) or any(
        pair in SECRET_NEIGHBOURS for pair in pairwise(parts)
    )


def refuse_secret(key: str) -> str:
    if settings.REGISTRY_SECRET_METADATA == "refuse" and looks_secret(key):  # noqa: S105 (a policy)
        raise PydanticCustomError(
            "secret_metadata", "looks like a secret; every reader would see it, and it must not be stored here"
        )
    return key


def redact_secrets(metadata: dict[str, str]) -> dict[str, str]:
    if settings.REGISTRY_SECRET_METADATA != "redact":  # noqa: S105 (a policy)
        return metadata
    return {key: REDACTED if looks_secret(key) else value for key, value in metadata.items()}


def limit_value(value: str) -> str:
    if len(value.encode()) > METADATA_VALUE_BYTES:
        raise PydanticCustomError("too_long", "must be at most 2 KiB in UTF-8")
    return value


def limit_metadata(metadata: dict[str, str]) -> dict[str, str]:
    if sum(len(key) + len(value.encode()) for key, value in metadata.items()) > METADATA_BYTES:
        raise PydanticCustomError("too_long", "keys and values must be at most 16 KiB together in UTF-8")
    return metadata


MetadataKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:/@-]{1,128}$")]
MetadataValue = Annotated[str, StringConstraints(pattern=NO_CONTROLS), AfterValidator(limit_value)]
Metadata = Annotated[
    dict[Annotated[MetadataKey, AfterValidator(refuse_secret)], MetadataValue],
    Field(
        max_length=64,
        description="Names and values for callers, at most 16 KiB together. No secrets: every reader sees them.",
    ),
    AfterValidator(limit_metadata),
    AfterValidator(redact_secrets),
]


def parse_index(value: Any) -> str:
    found = INDEX.fullmatch(value) if isinstance(value, str) else None
    if not found or int(found[1]) >= 2**63:
        raise PydanticCustomError("index", "must be the index of an earlier answer")
    return str(value)


def parse_duration(value: Any) -> float:
    """Return the seconds of 500ms, 30s or 5m."""
    found = DURATION.fullmatch(value) if isinstance(value, str) else None
    seconds = int(found[1]) * UNIT_SECONDS[found[2]] if found else MAX_WAIT_SECONDS + 1
    if seconds > MAX_WAIT_SECONDS:
        raise PydanticCustomError("duration", "must be a duration like 500ms, 30s or 5m, and at most 5m")
    return seconds


def parse_held_index(value: Any) -> str:
    """Return an index, or 0 for a caller without one."""
    return NO_INDEX if value == NO_INDEX else parse_index(value)


Index = Annotated[str, BeforeValidator(parse_index)]
HeldIndex = Annotated[str, BeforeValidator(parse_held_index)]
WaitSeconds = Annotated[
    float,
    BeforeValidator(parse_duration, json_schema_input_type=str),
    Field(description="The longest wait for a change, as in 500ms, 30s or 5m. Only with `index`."),
]
