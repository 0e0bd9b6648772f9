"""Tables of valid and invalid health checks in registrations."""

from typing import Any

HTTP, HTTPS, TCP, GRPC = ({"type": kind} for kind in ("http", "https", "tcp", "grpc"))


def headers(*names: str, value: str = "x") -> dict[str, str]:
    return dict.fromkeys(names, value)


def wrong_durations(member: str, limit: int) -> list[tuple[str, Any]]:
    return [(member, value) for value in (0, limit + 1, -1, 1.0, 2.5, "5", True, [1], 2**63)]


# Members of a check over HTTP with a wrong value.
MEMBERS: list[tuple[str, Any]] = [
    *[("type", value) for value in ("HTTP", "udp", "grpcs", "", 7, None, ["http"], "http\n")],
    *[
        ("path", value)
        for value in ("health", "", "//\u0000", "/a b", "/a\r\nX: y", "/a\n", "/#a", "/é", "http://a/", 7)
    ],
    *[("path", value) for value in (["/"], "/" + "a" * 1024)],
    *[("port", value) for value in (0, 65536, -1, 80.0, "80", True)],
    *wrong_durations("interval_seconds", 3600),
    *wrong_durations("timeout_seconds", 30),
    *wrong_durations("healthy_after", 10),
    *wrong_durations("unhealthy_after", 10),
    *[
        ("expected_status", value)
        for value in ("", "2xx", "200-", "-299", "600", "099", "200-600", "200,204", "200-299-300")
    ],
    *[("expected_status", value) for value in (200, [200], "200\n", "\u0662\u0660\u0660", "20")],
    *[("headers", value) for value in (["a: b"], "a: b", 7, {"": "x"}, {"a b": "x"}, {"a:": "x"}, {"a\r\nb": "x"})],
    *[
        ("headers", {"a": value})
        for value in ("", " x", "x ", "x\r\ny: z", "x\ny", "x\n", "\u0000", "é", 7, None, "x" * 257)
    ],
    *[
        ("headers", headers(name))
        for name in ("Authorization", "COOKIE", "Proxy-Authorization", "X-Api-Key", "x-auth-token")
    ],
    *[("headers", headers(name)) for name in ("X-Password", "Client.Secret", "Host", "connection", "Content-Length")],
    *[
        ("headers", headers(name))
        for name in ("Transfer-Encoding", "Accept-Encoding", "upgrade", "TE", "Expect", "a" * 65)
    ],
    ("headers", headers(*"abcdefghi")),
    ("tls_verify", "false"),
    ("tls_verify", 0),
    ("renews", "true"),
    ("renews", 1),
    *[("host", "10.0.0.9"), ("url", "http://10.0.0.9/"), ("method", "POST"), ("namespace", "default"), ("bogus", None)],
]
# Checks whose members do not go together.
COMBINATIONS: list[Any] = [
    *({**kind, "tls_verify": False} for kind in (HTTP, TCP, GRPC)),
    *({**kind, "path": "/health"} for kind in (TCP, GRPC)),
    *({**kind, "headers": {"X-Tenant": "shop"}} for kind in (TCP, GRPC)),
    *({**kind, "expected_status": "200-204"} for kind in (TCP, GRPC)),
    HTTP | {"expected_status": "299-200"},
]
NO_CHECKS: list[Any] = [{}, [], [HTTP], "http", 7, True, {"path": "/"}]

INVALID = [*(HTTP | {member: value} for member, value in MEMBERS), *COMBINATIONS, *NO_CHECKS]
VALID: list[Any] = [
    *(HTTP, HTTPS, TCP, GRPC, None),
    HTTP | {"path": "/health?deep=1&a=%20", "port": 9090, "interval_seconds": 1, "timeout_seconds": 30, "renews": True},
    HTTPS | {"interval_seconds": 3600, "healthy_after": 10, "unhealthy_after": 1, "tls_verify": False},
    HTTP | {"expected_status": "204", "headers": {"X-Tenant": "a b", "User-Agent": "x" * 256, "Accept": "*/*"}},
    HTTP | {"path": "/" + "a" * 1023, "expected_status": "200-200", "headers": headers(*"abcdefgh"), "port": None},
    TCP | dict.fromkeys(("path", "headers", "expected_status", "interval_seconds", "tls_verify", "renews")),
    TCP | {"tls_verify": True, "port": 1},
    GRPC | {"path": "/", "headers": {}, "expected_status": "200-299", "tls_verify": True},
]
