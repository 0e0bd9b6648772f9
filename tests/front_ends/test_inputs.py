"""Invalid requests through every front end are refused with the name of the field, and change nothing."""

import gzip
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.client import token
from tests.front_ends import inputs
from tests.front_ends.calls import CALLS, KEY, SERVICE, TEAM, Call
from tests.front_ends.cases import (
    ARRAYS,
    OBJECTS,
    WITH_BODY,
    bad_fields,
    bad_items,
    bad_json,
    bad_queries,
    is_operation,
    superfluous_queries,
    with_field,
)
from tests.front_ends.client import NAMESPACE, Answer, Request
from tests.front_ends.running import Case, Check, Run, expect, expect_items, request_of, succeeds

BY_NAME = {call.name: call for call in CALLS}
OBJECT_BYTES, BODY_BYTES = 64 * 1024, 1024 * 1024


@pytest.fixture
def bearer() -> str:
    """A token that permits everything and owns the services of the cases."""
    return token("registry-admins", TEAM, subject="admin")


def test_object_with_an_invalid_field_is_refused_by_name(run: Run, bearer: str) -> None:
    run.run(bad_fields(bearer), refused=True)
    run.conclude()


def test_item_with_an_invalid_field_is_refused_by_name(run: Run, bearer: str) -> None:
    run.run(bad_items(bearer))
    run.conclude()


def test_body_that_is_not_strict_json_is_refused(run: Run, bearer: str) -> None:
    run.run(bad_json(bearer), refused=True)
    run.conclude()


def test_query_with_an_invalid_parameter_is_refused_by_name(run: Run, bearer: str) -> None:
    run.run(bad_queries(bearer), refused=True)
    run.conclude()


def test_operation_with_a_query_is_refused(run: Run, bearer: str) -> None:
    run.run(superfluous_queries(bearer), refused=True)
    run.conclude()


def test_object_without_a_required_field_is_refused_by_name(run: Run, bearer: str) -> None:
    required = {"service_name", "instance_id", "host", "port", "owners", "reason", "status"}
    cases = [
        Case(
            f"{call.name} without {field}",
            request_of(call, bearer, body={name: value for name, value in call.body.items() if name != field}),
            expect(400, "invalid", fields=[field]),
        )
        for call in OBJECTS
        for field in required & call.body.keys()
    ]
    run.run(cases, refused=True)
    run.conclude()


def test_array_has_a_result_for_each_item(run: Run, bearer: str) -> None:
    cases = []
    for call in ARRAYS:
        (good,) = call.body
        no_objects = [17, "web", None, [], True]
        array = [*no_objects, good, good, {}]
        items = [*[(400, "invalid")] * len(no_objects), (call.item, None), (400, "invalid"), (400, "invalid")]
        cases += [
            Case(f"{call.name}, mixed", request_of(call, bearer, body=array), expect_items(*items)),
            Case(f"{call.name}, all bad", request_of(call, bearer, body=[{}, {}]), expect_items(*items[:2])),
            Case(f"{call.name}, empty", request_of(call, bearer, body=[]), expect(400, "invalid", fields=["body"])),
            Case(
                f"{call.name}, of 1,001",
                request_of(call, bearer, body=[{}] * 1001),
                expect(400, "invalid", fields=["body"]),
            ),
        ]
    run.run(cases)
    run.conclude()


def test_metadata_with_a_secret_key_is_refused_by_that_key(run: Run, bearer: str) -> None:
    call = BY_NAME["register"]
    cases = [
        Case(
            f"metadata {key}",
            request_of(call, bearer, body=with_field(call.body, "metadata", {key: "sesame"})),
            names_the_key(key),
        )
        for key in inputs.SECRET_KEYS
    ]
    run.run(cases, refused=True)
    run.conclude()


def names_the_key(key: str) -> Check:
    """Return a check that the problem contains the key and not its value."""
    refused = expect(400, "invalid", fields=["metadata"])

    def check(answer: Answer) -> str | None:
        named = key.encode() in answer.body and b"sesame" not in answer.body
        return refused(answer) or (None if named else f"it does not name {key}: {answer}")

    return check


def test_body_that_is_no_object_is_refused(run: Run, bearer: str) -> None:
    cases = []
    for call in OBJECTS:
        documents = [each for each in inputs.NO_OBJECTS if not (isinstance(each, list) and is_operation(call))]
        cases += [
            Case(
                f"{call.name} with {document!r}",
                request_of(call, bearer, body=inputs.as_json(document)),
                expect(400, "invalid"),
            )
            for document in documents
        ]
    run.run(cases, refused=True)
    run.conclude()


def padded(document: Any, size: int) -> bytes:
    """Return the document with trailing spaces, `size` bytes long once the placeholders are replaced."""
    text = inputs.as_json(document)
    growth = text.count(SERVICE.encode()) * (len("case-00000") - len(SERVICE))
    growth += text.count(NAMESPACE.encode()) * (len("asgi") - len(NAMESPACE))
    return text + b" " * (size - len(text) - growth)


def sizes(call: Call, bearer: str) -> Iterator[Case]:
    """Yield a body at its limit, one that is a byte longer, and two that the registry does not read to the end."""
    longest = OBJECT_BYTES if not call.item else BODY_BYTES
    good = succeeds(call)
    too_large = expect(413, "too_large")
    plain = request_of(call, bearer)
    whole = inputs.as_json(call.body)
    yield Case(f"{call.name}, longest", replace(plain, body=padded(call.body, longest)), good)
    yield Case(f"{call.name}, too long", replace(plain, body=padded(call.body, longest + 1)), too_large)
    announced = replace(
        plain, body=None, headers=(("Content-Length", "99999999"), ("Content-Type", "application/json"))
    )
    yield Case(f"{call.name}, announced", announced, too_large)
    chunks = [b" " * OBJECT_BYTES] * (BODY_BYTES // OBJECT_BYTES) + [b" "]
    yield Case(f"{call.name}, too long in chunks", replace(plain, body=None, chunks=[*chunks, whole]), too_large)


def test_body_over_its_limit_is_too_large(run: Run, bearer: str) -> None:
    run.run([case for call in WITH_BODY for case in sizes(call, bearer)])
    run.conclude()


def test_chunked_body_is_read(run: Run, bearer: str) -> None:
    body = inputs.as_json(KEY | {"service_name": "nowhere"})
    request = Request("POST", "/registry/heartbeat", bearer=bearer, chunks=[body[:9], body[9:]])
    run.run([Case("a heartbeat in chunks", request, expect(404, "instance_not_found", reason="never_registered"))])
    run.conclude()


def test_body_of_another_media_type_is_refused(run: Run, bearer: str) -> None:
    cases = [
        Case(
            f"{call.name} of {media_type or 'none'}",
            request_of(call, bearer, headers=(("Content-Type", media_type),)),
            expect(415, "unsupported_media_type"),
        )
        for call in WITH_BODY
        for media_type in (*inputs.OTHER_MEDIA_TYPES, "")
    ]
    run.run(cases, refused=True)
    run.conclude()


def test_parameters_of_a_media_type_are_ignored(run: Run, bearer: str) -> None:
    cases = [
        Case(
            f"{call.name} of {media_type}",
            request_of(call, bearer, headers=(*call.headers, ("Content-Type", media_type))),
            succeeds(call),
            of_empty=call.of_empty,
        )
        for call in CALLS
        if call.compared
        for media_type in inputs.JSON_MEDIA_TYPES
    ]
    run.run(cases)
    run.conclude()


def test_query_with_too_many_parameters_is_refused(run: Run, bearer: str) -> None:
    query = "&".join(["tag=a"] * 1001)
    paths = ("/registry/services", f"/registry/services/{SERVICE}", "/registry/watch", "/registry/changes")
    cases = [
        # The detail differs: Django refuses the query before DRF's view does.
        Case(path, Request("GET", f"{path}?{query}", None, bearer), expect(400, "invalid"), compared=False)
        for path in paths
    ]
    run.run(cases, refused=True)
    run.conclude()


def test_path_with_an_invalid_name_is_refused_by_name(run: Run, bearer: str) -> None:
    bodies = {"owners": {"owners": [TEAM]}, "release": {"reason": "x"}, "status": {"status": "UP", "reason": "x"}}
    cases = [
        Case(
            f"{method} {path}",
            Request(method, path, bodies.get(path.rpartition("/")[2]) if method != "DELETE" else None, bearer),
            expect(400, "invalid", fields=[field]),
        )
        for method, path, field in inputs.PATHS
    ]
    run.run(cases, refused=True)
    run.conclude()


def test_request_with_another_method_is_refused_with_allow(run: Run, bearer: str) -> None:
    cases = [
        Case(f"{method} {path}{slash}", Request(method, path + slash, None, bearer), allows(allowed))
        for path, allowed in inputs.METHODS.items()
        for method in inputs.ALL_METHODS
        if method not in allowed
        for slash in ("", "/")
    ]
    run.run(cases, refused=True)
    run.conclude()


def allows(methods: set[str]) -> Check:
    """Return a check that the answer is 405 and that Allow names these methods."""
    refused = expect(405, "method_not_allowed")

    def check(answer: Answer) -> str | None:
        named = {each.strip() for each in answer.headers.get("allow", "").split(",")}
        return refused(answer) or (f"Allow is {named}" if named != methods else None)

    return check


def test_unknown_path_is_not_found(run: Run, bearer: str) -> None:
    cases = [
        Case(f"{method} {path}", Request(method, path, None, sent), expect(404, "not_found"))
        for path in inputs.UNKNOWN_PATHS
        for method in ("GET", "POST")
        for sent in (bearer, None)
    ]
    run.run(cases, refused=True)
    run.conclude()


def test_unknown_host_is_misdirected(run: Run, bearer: str) -> None:
    tried = [(call, "evil.example") for call in CALLS if call.path.startswith("/registry/")]
    tried += [(BY_NAME[name], host) for name in ("heartbeat", "discovery") for host in inputs.BAD_HOSTS]
    cases = [
        Case(
            f"{call.name} at {host}",
            request_of(call, bearer, headers=(*call.headers, ("Host", host))),
            expect(421, "unknown_host"),
        )
        for call, host in tried
    ]
    run.run(cases, refused=True)
    run.conclude()


def test_probes_and_scrapes_answer_for_any_host(run: Run, bearer: str) -> None:
    cases = [
        Case(f"{path} at {host}", Request("GET", path, None, sent, (("Host", host),)), expect(200), compared=False)
        for path, sent in (("/livez", None), ("/readyz", None), ("/metrics", bearer))
        for host in ("evil.example", "10.1.2.3:8000")
    ]
    run.run(cases)
    run.conclude()


def test_compressed_body_is_unsupported(run: Run, bearer: str) -> None:
    def check(answer: Answer) -> str | None:
        accepted = answer.headers.get("accept-encoding")
        refused = expect(415, "unsupported_media_type")(answer)
        return refused or (None if accepted == "identity" else f"Accept-Encoding is {accepted}")

    bodies = {"a compressed body": gzip.compress(b"{}"), "a plain body": b"{}"}
    cases = [
        Case(
            f"{call.name} with {name}",
            request_of(call, bearer, body=body, headers=(*call.headers, ("Content-Encoding", "gzip"))),
            check,
        )
        for call in CALLS
        if call.body is not None
        for name, body in bodies.items()
    ]
    run.run(cases, refused=True)
    run.conclude()
