"""Authentication, order of refusals and content of problems through every front end."""

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from django.conf import settings

from registry_project.devstack.issuer import keys
from registry_project.devstack.issuer.tokens import issue_token
from tests.client import token
from tests.front_ends.calls import CALLS, KEY, OTHER_TEAM, REGISTRATION, ROLES, SERVICE, TEAM, Call
from tests.front_ends.cases import WITH_BODY
from tests.front_ends.client import Answer, Request
from tests.front_ends.running import Case, Check, Failure, Run, expect, request_of, succeeds
from tests.leaks import note_token

CANARY = "sesame"


def changed_token(bearer: str, **header: Any) -> str:
    """Return the token with another header, which its signature does not match."""
    _header, payload, signature = bearer.split(".")
    text = json.dumps({"typ": "at+jwt", "kid": "unknown", "alg": "RS256"} | header).encode()
    return note_token(f"{base64.urlsafe_b64encode(text).decode().rstrip('=')}.{payload}.{signature}")


def resigned_token(bearer: str, *, encoding: str = "utf-8", **header: Any) -> str:
    """Return the token with more in its header, or with a payload in another encoding, signed by the issuer's key."""
    _header, payload, _signature = bearer.split(".")
    text = base64.urlsafe_b64decode(payload + "==").decode().encode(encoding)
    members = {"typ": "at+jwt", "kid": keys.public_jwk(settings.REGISTRY_DATA_DIR)["kid"], "alg": keys.ALGORITHM}
    parts = (json.dumps(members | header).encode(), text)
    content = ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)
    key = keys.private_key(settings.REGISTRY_DATA_DIR)
    signature = key.sign(content.encode(), padding.PKCS1v15(), hashes.SHA256())
    return note_token(f"{content}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}")


def of_another(audience: str, issuer: str) -> str:
    return note_token(issue_token(settings.REGISTRY_DATA_DIR, issuer, "x", ["registry-admins", TEAM], audience))


def credentials() -> dict[str, tuple[str, str]]:
    """Return values of Authorization that are refused, with the code of the problem."""
    good = token("registry-admins", TEAM, subject="admin")
    tokens = {
        "garbage": "a.b.c",
        "no parts": "garbage",
        "expired": token("registry-admins", TEAM, ttl_seconds=-60),
        "without its signature": note_token(good.rpartition(".")[0] + "."),
        "unsigned": changed_token(good, alg="none").rpartition(".")[0] + ".",
        "signed with the public key": changed_token(good, alg="HS256"),
        "of an unknown key": changed_token(good),
        "for another audience": of_another("another", settings.OIDC_ISSUER),
        "of another issuer": of_another(settings.OIDC_AUDIENCE, "https://issuer.example.test"),
        "too long": "x" * 9000,
        "with a critical extension": resigned_token(good, crit=["exp"]),
        "with b64 as critical": resigned_token(good, crit=["b64"]),
        "with b64 as critical and true": resigned_token(good, crit=["b64"], b64=True),
        "with b64 as critical and false": resigned_token(good, crit=["b64"], b64=False),
        "with an empty crit": resigned_token(good, crit=[]),
        **{f"in {name}": resigned_token(good, encoding=name) for name in ("utf-16", "utf-32-be", "utf-8-sig")},
        "with a space": f"{good} {good}",
    }
    schemes = {"Basic": "Basic dXNlcjpwYXNzd29yZA==", "no token": "Bearer", "token alone": good, "blank": "Bearer   "}
    refused = {name: f"Bearer {value}" for name, value in tokens.items()} | schemes
    return {"nothing": ("", "not_authenticated")} | {name: (value, "token_invalid") for name, value in refused.items()}


def test_call_without_a_valid_token_is_unauthorized(run: Run) -> None:
    run.run(
        [
            Case(
                f"{call.name} with {name}",
                request_of(call, None, headers=(*call.headers, ("Authorization", value))),
                expect(401, code),
            )
            for call in CALLS
            for name, (value, code) in credentials().items()
        ],
        refused=True,
    )
    run.conclude()


def test_token_with_an_unknown_header_parameter_is_accepted(run: Run) -> None:
    good = token("registry-admins", TEAM, subject="admin")
    cases = [
        Case(call.name, request_of(call, resigned_token(good, unknown=True)), expect(200))
        for call in CALLS
        if call.succeeds == 200 and call.compared
    ]
    run.run(cases)
    run.conclude()


def test_authorization_scheme_in_any_case_is_accepted(run: Run) -> None:
    good = token("registry-admins", TEAM, subject="admin")
    served = expect(200)
    run.run(
        [
            Case(
                f"{call.name} with {scheme}",
                request_of(call, None, headers=(*call.headers, ("Authorization", f"{scheme} {good}"))),
                served,
            )
            for call in CALLS
            if call.succeeds == 200 and call.compared
            for scheme in ("bearer", "BEARER", "Bearer ")
        ]
    )
    run.conclude()


def separator_of(call: Call) -> str:
    """Return the character before the next query parameter of the call."""
    return "&" if "?" in call.path else "?"


def wrong_requests(call: Call, bearer: str | None) -> Iterator[tuple[str, Request]]:
    """Yield the call with each defect that is checked after the token and the permission."""
    plain = request_of(call, bearer)
    yield "a service that is not there", replace(plain, path=call.path.replace(SERVICE, "nowhere"))
    yield "a bad query", replace(plain, path=f"{call.path}{separator_of(call)}nonsense=1")
    if call.body is None:
        return
    yield "a bad field", replace(plain, body={"bogus": 1} if not call.item else [{"bogus": 1}])
    yield "no JSON", replace(plain, body=b"{")
    yield "an empty array", replace(plain, body=[])
    yield "another media type", replace(plain, headers=(("Content-Type", "text/plain"),))
    yield "too large a body", replace(plain, body=b" " * (1024 * 1024 + 1))
    announced = (("Content-Length", "99999999"), ("Content-Type", "application/json"))
    yield "a body that is announced", replace(plain, body=None, headers=announced)


def test_token_is_checked_before_the_rest_of_the_request(run: Run) -> None:
    run.run(
        [
            Case(f"{call.name} with {name}", request, expect(401, code))
            for call in CALLS
            for bearer, code in ((None, "not_authenticated"), ("a.b.c", "token_invalid"))
            for name, request in wrong_requests(call, bearer)
        ],
        refused=True,
    )
    run.conclude()


def test_permission_is_checked_before_query_and_body(run: Run) -> None:
    bearer = token("no-role", TEAM, subject="nobody")
    run.run(
        [
            Case(
                f"{call.name} with {name}",
                request,
                expect(403, "permission_denied", permission=call.missing(frozenset())),
            )
            for call in CALLS
            for name, request in wrong_requests(call, bearer)
        ],
        refused=True,
    )
    run.conclude()


def test_changes_without_a_service_need_view_change_whatever_the_query(run: Run) -> None:
    bearer = token("registry-services", TEAM, subject="owner")
    queries = ("", "namespace=default", "instance_id=a", "actor=payments", "limit=0", "nonsense=1")
    cases = [
        Case(
            query,
            Request("GET", f"/registry/changes?{query}", None, bearer),
            expect(403, "permission_denied", permission="view_change"),
        )
        for query in queries
    ]
    run.run(cases, refused=True)
    run.conclude()


def test_request_is_validated_before_the_service_is_looked_up(run: Run) -> None:
    bearer = token("registry-services", OTHER_TEAM, subject="stranger")
    cases = []
    for call in CALLS:
        if call.missing(ROLES["registry-services"]) or not call.path.startswith("/registry/") or call.item:
            continue
        for service in (SERVICE, "nowhere"):
            path = call.path.replace(SERVICE, service)
            request = request_of(call, bearer, path=f"{path}{separator_of(call)}nonsense=1")
            cases.append(Case(f"{call.name} of {service} with a bad query", request, expect(400, "invalid")))
            if call.body is not None:
                body = json.loads(json.dumps(call.body).replace(SERVICE, service)) | {"bogus": 1}
                request = request_of(call, bearer, path=path, body=body)
                cases.append(Case(f"{call.name} of {service} with a bad field", request, expect(400, "invalid")))
    run.run(cases, refused=True)
    run.conclude()


def never_repeats(answer: Answer) -> str | None:
    if not 400 <= answer.status < 500:
        return f"it is not refused: {answer}"
    shown = [name for name, value in answer.headers.items() if CANARY in value.lower()]
    if CANARY.encode() in answer.body.lower():
        shown.append("body")
    return f"what was sent comes back in {shown}: {answer}" if shown else None


def with_canaries() -> Iterator[tuple[str, Request]]:
    """Yield refused requests with the canary in every part that a client controls."""
    admin = token("registry-admins", TEAM, subject="admin")
    yield from with_canary_in_field(admin)
    yield from with_canary_in_text(admin)
    yield from with_canary_in_head(admin)


def with_canary_in_field(admin: str) -> Iterator[tuple[str, Request]]:
    for field in ("namespace", "service_name", "instance_id", "host", "scheme", "zone", "status", "owner"):
        yield (
            f"register with {field}",
            Request("POST", "/registry/register", REGISTRATION | {field: f"{CANARY}\u0000"}, admin),
        )
    for field, value in (
        ("port", CANARY),
        ("tags", [f"{CANARY}\u0000"]),
        ("tags", CANARY),
        ("metadata", {"a": f"{CANARY}\u0000"}),
        ("metadata", {"password": CANARY}),
        ("metadata", {f"{CANARY} !": "a"}),
        ("ttl_seconds", CANARY),
        ("weight", CANARY),
    ):
        yield f"register with {field}", Request("POST", "/registry/register", REGISTRATION | {field: value}, admin)
    for name in ("heartbeat", "deregister"):
        for field in ("epoch", "status", "namespace"):
            yield f"{name} with {field}", Request("POST", f"/registry/{name}", KEY | {field: f"{CANARY}!"}, admin)
        yield f"{name} of another", Request("POST", f"/registry/{name}", KEY | {"service_name": CANARY}, admin)
    override = {"status": f"{CANARY}", "reason": f"{CANARY}\u0000", "until": CANARY}
    yield "override", Request("PUT", f"/registry/instance/{CANARY}/{CANARY}/status", override, admin)
    yield "owners", Request("PUT", f"/registry/services/{CANARY}/owners", {"owners": [f"{CANARY}\u0000"]}, admin)
    yield "release", Request("POST", f"/registry/services/{CANARY}/release", {"reason": f"{CANARY}\u0000"}, admin)
    yield "release of none", Request("POST", f"/registry/services/{CANARY}/release", {"reason": CANARY}, admin)


def with_canary_in_text(admin: str) -> Iterator[tuple[str, Request]]:
    for call in WITH_BODY:
        yield f"{call.name}, syntax", request_of(call, admin, body=f'{{"{CANARY}": {CANARY}'.encode())
        yield f"{call.name}, key twice", request_of(call, admin, body=f'{{"{CANARY}":1,"{CANARY}":1}}'.encode())
        yield f"{call.name}, media type", request_of(call, admin, headers=(("Content-Type", f"text/{CANARY}"),))
        yield (
            f"{call.name}, charset",
            request_of(call, admin, body=b"{", headers=(("Content-Type", f"application/json; charset={CANARY}"),)),
        )


def with_canary_in_head(admin: str) -> Iterator[tuple[str, Request]]:
    for path in ("services", "services/web", "changes", "watch", "instance/web", "instance/web/a"):
        for query in (f"status={CANARY}%00", f"{CANARY}%20=1", f"limit={CANARY}", f"index={CANARY}", f"wait={CANARY}"):
            yield f"{path}?{query}", Request("GET", f"/registry/{path}?{query}", None, admin)
    yield "cursor", Request("GET", f"/registry/services?after={CANARY}", None, admin)
    yield "path", Request("GET", f"/registry/{CANARY}", None, admin)
    yield "name", Request("GET", f"/registry/services/{CANARY}", None, admin)
    yield "bad name", Request("GET", f"/registry/services/{CANARY}%00", None, admin)
    yield "instance", Request("GET", f"/registry/instance/{CANARY}", None, admin)
    yield "host", Request("GET", "/registry/services", None, admin, headers=(("Host", f"{CANARY}.example"),))
    yield "token", Request("GET", "/registry/services", None, CANARY)
    yield "scheme", Request("GET", "/registry/services", headers=(("Authorization", f"{CANARY} {CANARY}"),))


def test_problem_never_contains_what_was_sent(run: Run) -> None:
    run.run([Case(name, request, never_repeats) for name, request in with_canaries()], refused=True)
    run.conclude()


def test_repeated_header_is_read_as_one(run: Run) -> None:
    good = token("registry-admins", TEAM, subject="admin")
    twice: list[tuple[str, str, str, Check | None]] = [
        ("X-Twice", "a", "b", None),
        ("Authorization", f"Bearer {good}", f"Bearer {good}", expect(401, "token_invalid")),
        ("Host", "localhost", "evil.example", expect(421, "unknown_host")),
    ]
    cases = [
        Case(
            f"{call.name} with {name} twice",
            request_of(call, good, headers=(*call.headers, (name, first), (name, second))),
            check or succeeds(call),
            of_empty=call.of_empty,
        )
        for call in CALLS
        if call.compared
        for name, first, second, check in twice
    ]
    run.run(cases)
    run.conclude()


REPEATED = "of-somebody.else:1"


def test_request_id_is_kept_only_when_it_is_valid(run: Run) -> None:
    bearer = token("registry-admins", TEAM, subject="admin")
    for call in CALLS:
        for sent, kept in ((REPEATED, True), ("a b", False), ("x" * 129, False), ("", False), ("\u00e9", False)):
            request = request_of(
                call, bearer, path=f"{call.path}{separator_of(call)}nonsense=1", headers=(("X-Request-Id", sent),)
            )
            for front in run.fronts:
                answer = front.ask(request)
                found = answer.headers.get("x-request-id", "")
                if (found == sent) != kept or not found or (answer.is_problem and answer.json["request_id"] != found):
                    run.failures.append(Failure(front.name, f"{call.name} with {sent!r}", f"{found!r}, {answer}"))
    run.conclude()
