"""Tables of invalid input, by the part of the request that holds it."""

import json
from typing import Any

from tests.front_ends import health_checks
from tests.front_ends.calls import INSTANCE, SERVICE

Fields = list[tuple[str, Any]]

LONE_SURROGATE = "\ud800"

KEY_FIELDS: Fields = [
    ("namespace", "Shop"),
    ("namespace", ""),
    ("namespace", "a" * 64),
    ("namespace", LONE_SURROGATE),
    ("namespace", 1),
    ("service_name", "a..b"),
    ("service_name", "-web"),
    ("service_name", "web:"),
    ("service_name", "web/a"),
    ("service_name", "wEb\u212a"),
    ("service_name", "web\n"),
    ("service_name", "a" * 129),
    ("service_name", ""),
    ("service_name", LONE_SURROGATE),
    ("service_name", None),
    ("service_name", ["web"]),
    ("instance_id", "_x"),
    ("instance_id", "/x"),
    ("instance_id", "a b"),
    ("instance_id", 'a"b'),
    ("instance_id", "a'b"),
    ("instance_id", "a\\b"),
    ("instance_id", "é"),
    ("instance_id", "a\u007f"),
    ("instance_id", "a" * 256),
    ("instance_id", "web\u0000"),
    ("instance_id", ""),
    ("instance_id", LONE_SURROGATE),
    ("instance_id", None),
    ("instance_id", 7),
    ("bogus", 1),
    ("bogus", None),
]
EPOCHS: Fields = [("epoch", value) for value in (0, -1, "1", 1.0, True, 2**53 + 1, 2**64, [1])]
INCARNATIONS: Fields = [
    ("incarnation", value) for value in ("", "a" * 65, "é", "a\n", "a\u0000", "\u007f", LONE_SURROGATE, 7, True, ["a"])
]
REGISTRATION_FIELDS: Fields = [
    *KEY_FIELDS,
    *INCARNATIONS,
    ("host", "127.1"),
    ("host", "0x7f.1"),
    ("host", "2130706433"),
    ("host", "fe80::1%eth0"),
    ("host", "http://a"),
    ("host", "bücher.example"),
    ("host", "a b"),
    ("host", "a.b.."),
    ("host", "."),
    ("host", "10.0.0.1."),
    ("host", "127.1."),
    ("host", "a" * 64),
    ("host", ".".join(["abcdefgh"] * 29)),
    ("host", "\u212aexample.com"),
    ("host", "256.1.1.1"),
    ("host", "10.0.0.1\u0000"),
    ("host", "0.0.0.0"),
    ("host", "::"),
    ("host", "::ffff:0.0.0.0"),
    ("host", "224.0.0.1"),
    ("host", "ff02::1"),
    ("host", "::ffff:239.1.2.3"),
    ("host", "255.255.255.255"),
    ("host", ""),
    ("host", None),
    ("port", 0),
    ("port", 65536),
    ("port", -1),
    ("port", 80.0),
    ("port", "80"),
    ("port", "\u0668\u0660"),
    ("port", True),
    ("port", 2**63),
    ("port", None),
    ("scheme", "ftp"),
    ("zone", "a b"),
    ("zone", ""),
    ("zone", "z" * 65),
    ("weight", -1),
    ("weight", 65536),
    ("weight", 0.5),
    ("tags", ["a", "a"]),
    ("tags", ["é"]),
    ("tags", ["a" * 256]),
    ("tags", [""]),
    ("tags", [LONE_SURROGATE]),
    ("tags", [None]),
    ("tags", [str(number) for number in range(65)]),
    ("tags", "a"),
    ("metadata", {"a": 1}),
    ("metadata", {"a": None}),
    ("metadata", {"a": {"b": "c"}}),
    ("metadata", {"a": "x" * 2049}),
    ("metadata", {"a": "ü" * 1025}),
    ("metadata", {"k" * 129: "x"}),
    ("metadata", {"a": "\u0085"}),
    ("metadata", {"a": LONE_SURROGATE}),
    ("metadata", {LONE_SURROGATE: "a"}),
    ("metadata", {"a b": "x"}),
    ("metadata", {"": "x"}),
    ("metadata", {str(number): "x" for number in range(65)}),
    ("metadata", {str(number): "x" * 2047 for number in range(9)}),
    ("metadata", []),
    ("ttl_seconds", 4),
    ("ttl_seconds", 86401),
    ("ttl_seconds", "30"),
    *[("lease", value) for value in ("None", "", "ttl", 30, True, ["none"], LONE_SURROGATE)],
    ("status", "up"),
    ("status", "EXPIRED"),
    ("owner", ""),
    ("owner", "a\u0000"),
    ("owner", "x" * 256),
    *[("health_check", check) for check in health_checks.INVALID],
    ("epoch", 1),
]
HEARTBEAT_FIELDS: Fields = [
    *KEY_FIELDS,
    *EPOCHS,
    *INCARNATIONS,
    ("status", "GONE"),
    ("status", ""),
    ("host", "10.0.0.1"),
]
DEREGISTRATION_FIELDS: Fields = [*KEY_FIELDS, *EPOCHS, *INCARNATIONS, ("status", "UP"), ("reason", "x")]

REASONS: Fields = [("reason", value) for value in ("", "   ", "a\u0000", "\u0085", "x" * 513, LONE_SURROGATE, 1)]
OVERRIDE_FIELDS: Fields = [
    *REASONS,
    ("reason", None),
    ("status", "up"),
    ("status", None),
    ("until", "tomorrow"),
    ("until", "2026-01-01"),
    ("until", "2026-01-01T00:00:00"),
    ("until", "2026-01-01T00:00:00Z"),
    ("until", "9999-12-31T23:59:59-23:59"),
    ("until", 5),
    ("actor", "me"),
    ("namespace", "default"),
]
OWNERS_FIELDS: Fields = [
    *REASONS,
    ("owners", []),
    ("owners", [""]),
    ("owners", ["a", "a"]),
    ("owners", ["a\u0000"]),
    ("owners", [LONE_SURROGATE]),
    ("owners", ["x" * 256]),
    ("owners", [str(number) for number in range(9)]),
    ("owners", "a"),
    ("owners", None),
    ("owners", ["registry-services"]),
    ("owners", ["team-b", "offline_access"]),
    ("owners", ["default-roles-shop"]),
    ("namespace", "default"),
]
RELEASE_FIELDS: Fields = [*REASONS, ("reason", None), ("more", 1), ("namespace", "default")]

FIELDS_OF = {
    "register": REGISTRATION_FIELDS,
    "heartbeat": HEARTBEAT_FIELDS,
    "deregister": DEREGISTRATION_FIELDS,
    "override": OVERRIDE_FIELDS,
    "owners": OWNERS_FIELDS,
    "release": RELEASE_FIELDS,
}

SECRET_KEYS = (
    *("password", "db.PASSWORD", "userpwd", "api-key", "x/private-key", "access_key:x", "auth_token", "secret"),
)
NO_OBJECTS: tuple[Any, ...] = (None, 17, "web", True, [[]], [None], 1.5)

# Invalid queries, with the field that the problem must name.
NAMESPACES: Fields = [("namespace", "namespace=A"), ("namespace", "namespace=%00"), ("namespace", "namespace=")]
NAMESPACES += [("namespace", "namespace=a&namespace=b"), ("namespace", "namespace=%FF")]
UNKNOWN: Fields = [("nonsense", "nonsense=1"), ("nonsense", "nonsense"), ("format", "format=json"), ("?", "a%20b=1")]
INSTANCE_FILTERS: Fields = [
    ("status", "status=up"),
    ("status", "status="),
    ("state", "state=dead"),
    ("protected", "protected=yes"),
    ("zone", "zone=a%20b"),
    ("tag", "tag=%C3%A9"),
    ("tag", "tag="),
    ("metadata", "metadata.a=%00"),
    ("metadata", "metadata.a=1&metadata.a=2"),
    ("metadata", "metadata.a%20b=1"),
    ("metadata", "metadata=1"),
    ("metadata", "metadata=1&metadata.a=b"),
]
INDEXES: Fields = [
    ("index", "index="),
    ("index", "index=-1"),
    ("index", "index=abc"),
    ("index", "index=12345678-"),
    ("index", "index=12345678-0"),
    ("index", f"index=12345678-{2**63}"),
    ("index", "index=12345678-1&index=12345678-2"),
    ("wait", "index=12345678-1&wait=301s"),
    ("wait", "index=12345678-1&wait=-1s"),
    ("wait", "index=12345678-1&wait=soon"),
    ("wait", "index=12345678-1&wait=%D9%A3s"),
    ("wait", "index=12345678-1&wait=1s&wait=2s"),
    ("wait", "wait=1h"),
    ("wait", "wait=30"),
    ("wait", "wait=1e3s"),
]
LIMITS: Fields = [
    ("limit", f"limit={value}")
    for value in ("0", "%00", "501", "-1", "1e2", "%D9%A1", "9223372036854775808", "", "1.0")
]
LIMITS += [("limit", "limit=1&limit=2")]
CURSORS: Fields = [("after", f"after={value}") for value in ("nonsense", "WyJhIl0", "1", "", "x" * 1025)]
CURSORS += [("after", "after=WyIwMDAwMDAwMC0xIiwiXHVkODAwIiwiYSJd")]
REQUIRES: Fields = [
    ("require", f"require={value}") for value in ("", "-1", "1.0", "+1", "all", "50%25", "%D9%A1", "1&require=1")
]
MOMENTS = ("yesterday", "2026-01-01", "2026-01-01T00:00:00", "2026-13-01T00:00:00Z", "0001-01-01T00:00:00%2B23:59")

SERVICE_PATH, INSTANCE_PATH = f"/registry/services/{SERVICE}", f"/registry/instance/{SERVICE}/{INSTANCE}"
QUERIES: dict[tuple[str, str], Fields] = {
    ("GET", "/registry/services"): [
        *NAMESPACES,
        *UNKNOWN,
        *INSTANCE_FILTERS,
        *INDEXES,
        *LIMITS,
        *CURSORS,
        ("name", "name=a*b"),
        ("name", "name="),
        ("view", "view=half"),
        ("owner", "owner="),
        ("owner", "owner=%0A"),
    ],
    ("GET", SERVICE_PATH): [
        *NAMESPACES,
        *UNKNOWN,
        *INSTANCE_FILTERS,
        *INDEXES,
        ("name", "name=x"),
        ("limit", "limit=1"),
        *[("at", f"at={moment}") for moment in (*MOMENTS, "2999-01-01T00:00:00Z", "", "1")],
    ],
    ("GET", "/registry/watch"): [
        *NAMESPACES,
        *UNKNOWN,
        *INDEXES,
        ("service", "service=-"),
        ("service", "service="),
        ("service", "service=UP%20PER"),
        ("kind", "kind=registered"),
        ("instance_id", "instance_id=a"),
    ],
    ("GET", "/registry/changes"): [
        *NAMESPACES,
        *UNKNOWN,
        *LIMITS,
        *CURSORS,
        ("service", "service=Web!"),
        ("service", "service=a&service=b"),
        ("service", "service=%00"),
        ("instance_id", "instance_id=%00"),
        ("kind", "kind=vanished"),
        ("actor", "actor="),
        ("actor", "actor=%0a"),
        *[(name, f"{name}={moment}") for name in ("since", "until") for moment in MOMENTS],
        ("at", "at=1"),
    ],
    ("GET", INSTANCE_PATH): [*NAMESPACES, *UNKNOWN, ("status", "status=all")],
    ("GET", f"/registry/instance/{INSTANCE}"): [*NAMESPACES, *UNKNOWN, ("service_name", "service_name=web")],
    ("GET", f"{SERVICE_PATH}/health"): [
        *NAMESPACES,
        *UNKNOWN,
        *REQUIRES,
        ("require", "require=10001"),
        ("name", "name=x"),
        ("status", "status=UP"),
    ],
    ("GET", f"{INSTANCE_PATH}/health"): [*NAMESPACES, *UNKNOWN, *REQUIRES, ("require", "require=2")],
    ("DELETE", SERVICE_PATH): [*NAMESPACES, *UNKNOWN, ("reason", "reason="), ("reason", "reason=%00")],
    ("PUT", f"{SERVICE_PATH}/owners"): [*NAMESPACES, *UNKNOWN],
    ("POST", f"{SERVICE_PATH}/release"): [*NAMESPACES, *UNKNOWN],
    ("PUT", f"{INSTANCE_PATH}/status"): [*NAMESPACES, *UNKNOWN, ("instance_id", "instance_id=x")],
    ("DELETE", f"{INSTANCE_PATH}/status"): [*NAMESPACES, *UNKNOWN],
}
# Queries of the operations, which take no parameters.
NO_PARAMETERS: Fields = [
    *UNKNOWN,
    ("namespace", "namespace=test"),
    ("metadata", "metadata.a=b"),
    ("service_name", "service_name=web"),
]

# Invalid values in a path, with the field that the problem must name.
PATHS: list[tuple[str, str, str]] = [
    ("GET", "/registry/services/W%00b", "name"),
    ("GET", "/registry/services/%FF", "name"),
    ("GET", "/registry/services/a..b", "name"),
    ("GET", "/registry/services/a%0A", "name"),
    ("GET", "/registry/services/a%2Fb", "name"),
    ("PUT", "/registry/services/a%2Fb/owners", "name"),
    ("GET", "/registry/services/a%2Fb/health", "name"),
    ("GET", "/registry/services/-/health", "name"),
    ("GET", "/registry/instance/web/a%20b/health", "instance_id"),
    ("GET", "/registry/instance/-/a/health", "service_name"),
    ("GET", "/registry/instance/a%20b", "instance_id"),
    ("GET", "/registry/instance/web/a%20b", "instance_id"),
    ("GET", "/registry/instance/web/%FF", "instance_id"),
    ("GET", "/registry/instance/-/a", "service_name"),
    ("GET", "/registry/instance/a%2Fb/c", "service_name"),
    ("GET", "/registry/instance/web/a%FF", "instance_id"),
    ("GET", "/registry/instance/%2Fa", "instance_id"),
    ("PUT", "/registry/instance/web/a%22/status", "instance_id"),
    ("DELETE", "/registry/services/-", "name"),
    ("PUT", "/registry/services/-/owners", "name"),
    ("POST", "/registry/services/-/release", "name"),
    ("PUT", "/registry/instance/-/a/status", "service_name"),
    ("DELETE", "/registry/instance/web/a%00/status", "instance_id"),
]

OTHER_MEDIA_TYPES = (
    *("text/plain", "text/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"),
    *("application/json-patch+json", "application/*", "json", "application/jsonx"),
)
# Parameters are ignored: JSON is UTF-8.
CHARSETS = ("utf-8", "latin-1", "utf-16", "base64", "rot13", "undefined", "nonsense")
JSON_MEDIA_TYPES = (
    *("Application/JSON", *(f"application/json; charset={charset}" for charset in CHARSETS)),
    *("application/json; a*=nonsense'en'b", "application/json; a*0*=nonsense''b; a*1=c", "application/json;;=;"),
)

# Paths with their methods.
METHODS = {
    "/registry/register": {"POST"},
    "/registry/heartbeat": {"POST"},
    "/registry/deregister": {"POST"},
    "/registry/services": {"GET", "HEAD"},
    "/registry/services/web": {"GET", "HEAD", "DELETE"},
    "/registry/services/web/owners": {"PUT"},
    "/registry/services/web/release": {"POST"},
    "/registry/services/web/health": {"GET", "HEAD"},
    "/registry/instance/web-1": {"GET", "HEAD"},
    "/registry/instance/web/web-1": {"GET", "HEAD"},
    "/registry/instance/web/web-1/health": {"GET", "HEAD"},
    "/registry/instance/web/web-1/status": {"PUT", "DELETE"},
    "/registry/watch": {"GET", "HEAD"},
    "/registry/changes": {"GET", "HEAD"},
}
ALL_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")
BAD_HOSTS = ("localhost.evil.example", "evil.example:80", "a b", "[::1", "localhost:x")
UNKNOWN_PATHS = (
    *("/registry/", "/registry/nowhere", "/registry//services", "/registry/services//", "/registry/services/a/b"),
    *(
        "/registry/services/a%2Fb/c",
        "/registry/services%2Fa",
        "/registry%2Fregister",
        "/registry/register/x",
        "/registry/Register",
        "/registry/instance",
    ),
    *(
        "/registry/instance/a/b/c",
        "/registry/instance/a/b/status/x",
        "/registry/services/a/health/x",
        "/registry/watch/x",
        "/registry/register.json",
    ),
)


def as_json(document: Any) -> bytes:
    return json.dumps(document).encode()
