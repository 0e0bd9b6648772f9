"""Strict JSON of bounded size."""

import pytest
from django.conf import settings

from service_registry.exceptions import BodyTooLarge, InvalidInput
from service_registry.http.strict_json import MAX_DEPTH, OBJECT_BYTES, parse_body


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def padded(text: bytes, size: int) -> bytes:
    return text + b" " * (size - len(text))


@pytest.mark.parametrize(
    "body", [b'{"a": 1}', b"[]", b'"\xc3\xa9"', b"7", b"null", nested(MAX_DEPTH), b'[{"a": 1}, {"a": 1}]']
)
def test_document_is_parsed(body: bytes) -> None:
    parse_body(body)


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        nested(MAX_DEPTH + 1),
        b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1),
        nested(100_000),
    ],
    ids=lambda body: repr(body[:20]),
)
def test_other_text_is_refused_without_repeating_it(body: bytes) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_body(body)
    assert (refused.value.errors, str(refused.value)) == ({}, "The body is not JSON as this registry reads it.")


def test_array_may_fill_the_whole_body_and_an_object_may_not() -> None:
    limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    assert parse_body(padded(b"[]", limit)) == []
    assert parse_body(padded(b"{}", OBJECT_BYTES)) == {}
    for body in (padded(b"{}", OBJECT_BYTES + 1), padded(b"[]", limit + 1)):
        with pytest.raises(BodyTooLarge):
            parse_body(body)
