"""Compressed responses of both front ends, and their entity tags."""

import functools
import gzip
from datetime import UTC, datetime

import pytest

from service_registry.http.compression import MIN_BYTES
from tests.client import registration, token
from tests.front_ends.calls import TEAM
from tests.front_ends.client import NAMESPACE, Answer, FrontEnd, Request

SERVICE, INSTANCES = "compressed", 300
READS = {
    "discover": f"/registry/services/{SERVICE}?namespace={NAMESPACE}",
    "discover, filtered": f"/registry/services/{SERVICE}?namespace={NAMESPACE}&tag=v1&status=all",
    "discover, in the past": f"/registry/services/{SERVICE}?namespace={NAMESPACE}&at=",
    "list": f"/registry/services?namespace={NAMESPACE}",
    "instance": f"/registry/instance/{SERVICE}/i-0?namespace={NAMESPACE}",
    "instance by id": f"/registry/instance/i-0?namespace={NAMESPACE}",
    "changes": f"/registry/changes?namespace={NAMESPACE}&limit=50",
    "metrics": "/metrics",
}
# What does not belong to the representation; DRF adds Allow.
MOVING = {"allow", "date", "x-registry-index", "content-length", "content-encoding"}


@pytest.fixture(scope="module")
def reader(fronts: tuple[FrontEnd, FrontEnd]) -> str:
    """Register a service of many instances in the namespace of each front end; return a reader's token."""
    team = token("registry-services", TEAM, subject="compressing")
    for front in fronts:
        items = [
            registration(SERVICE, f"i-{number}", namespace=NAMESPACE, tags=["v1"], metadata={"note": "x" * 1000})
            for number in range(INSTANCES)
        ]
        answer = front.ask(Request("POST", "/registry/register", items, team))
        assert answer.items == [(201, None)] * INSTANCES
        empty = registration("small", "alone", namespace=NAMESPACE)
        assert front.ask(Request("POST", "/registry/register", empty, team)).status == 201
    return token("registry-readers", "registry-admins", subject="reader")


def read(front: FrontEnd, path: str, bearer: str, accepted: str = "", *, method: str = "GET", tag: str = "") -> Answer:
    headers = (("Accept-Encoding", accepted), ("If-None-Match", tag))
    if path.endswith("at="):
        path += moment()
    return front.ask(Request(method, path, None, bearer, headers=headers))


@functools.cache
def moment() -> str:
    """Return a time after the registrations, the same for all reads."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"


def representation(answer: Answer) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name not in MOVING}


@pytest.mark.parametrize("path", READS.values(), ids=READS)
def test_read_is_compressed_where_the_client_accepts_it(
    fronts: tuple[FrontEnd, FrontEnd], reader: str, path: str
) -> None:
    for front in fronts:
        plain = read(front, path, reader)
        assert (plain.status, plain.headers.get("content-encoding")) == (200, None), front.name
        for _ in range(2):  # rendered, and from the cache
            compressed = read(front, path, reader, "gzip, deflate")
            assert (compressed.status, compressed.headers.get("content-encoding")) == (200, "gzip"), front.name
            assert int(compressed.headers["content-length"]) == len(compressed.body) < len(plain.body)
            assert representation(compressed) == representation(plain)
            assert "accept-encoding" in compressed.headers["vary"].lower()
            if path != "/metrics":
                assert gzip.decompress(compressed.body) == plain.body, front.name
        for refusing in ("gzip;q=0", "identity", "*;q=0", "br"):
            assert "content-encoding" not in read(front, path, reader, refusing).headers, (front.name, refusing)


@pytest.mark.parametrize("path", READS.values(), ids=READS)
def test_head_of_a_read_has_the_headers_of_its_get(fronts: tuple[FrontEnd, FrontEnd], reader: str, path: str) -> None:
    for front in fronts:
        got, head = (read(front, path, reader, "gzip", method=method) for method in ("GET", "HEAD"))
        assert (head.status, head.body) == (200, b""), front.name
        assert representation(head) == representation(got)
        assert (head.headers["content-encoding"], got.headers["content-encoding"]) == ("gzip", "gzip"), front.name


def test_etag_of_either_coding_matches_for_both(fronts: tuple[FrontEnd, FrontEnd], reader: str) -> None:
    for front in fronts:
        for accepted, other in (("", "gzip"), ("gzip", "")):
            tag = read(front, READS["discover"], reader, accepted).headers["etag"]
            for sent in (tag, tag.removeprefix("W/"), f'"other", {tag}'):
                unchanged = read(front, READS["discover"], reader, other, tag=sent)
                assert (unchanged.status, unchanged.body, unchanged.headers["etag"]) == (304, b"", tag), front.name
                assert "content-encoding" not in unchanged.headers
                assert unchanged.headers["vary"] == "Accept-Encoding", front.name


def test_small_body_is_compressed_only_for_a_client_that_refuses_it_plain(
    fronts: tuple[FrontEnd, FrontEnd], reader: str
) -> None:
    path = f"/registry/services/small?namespace={NAMESPACE}"
    for front in fronts:
        plain = read(front, path, reader, "gzip")
        assert len(plain.body) < MIN_BYTES
        assert ("content-encoding" in plain.headers, plain.headers["vary"]) == (False, "Accept-Encoding"), front.name
        assert gzip.decompress(read(front, path, reader, "gzip, identity;q=0").body) == plain.body


@pytest.mark.parametrize(
    "path",
    [
        "/registry/services/nowhere",
        "/registry/services?unknown=1",
        f"/registry/watch?namespace={NAMESPACE}&wait=0s",
        "/registry/docs",
        "/registry/schema",
        "/admin/login/",
        "/livez",
        "/readyz",
    ],
)
def test_nothing_else_is_compressed(fronts: tuple[FrontEnd, FrontEnd], reader: str, path: str) -> None:
    for front in fronts:
        answer = read(front, path, reader, "gzip, identity;q=0")
        assert "content-encoding" not in answer.headers, (front.name, answer.status)
