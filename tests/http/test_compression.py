"""Negotiation of compressed responses (RFC 9110, section 12.5.3)."""

import gzip

import pytest

from service_registry.http.compression import MIN_BYTES, compress, min_bytes

CASES = {
    None: None,
    "": None,
    "gzip": MIN_BYTES,
    "GZip": MIN_BYTES,
    "x-gzip": MIN_BYTES,
    "gzip, deflate, br": MIN_BYTES,
    "br;q=1.0 , gzip;q=0.8": MIN_BYTES,
    "gzip ; q=0.001": MIN_BYTES,
    "gzip;q=1.000": MIN_BYTES,
    "*": MIN_BYTES,
    "*;q=0.5": MIN_BYTES,
    "identity;q=0.5, gzip;q=1": MIN_BYTES,
    "identity, gzip": MIN_BYTES,
    "deflate, *;q=0.1": MIN_BYTES,
    "gzip;q=0": None,
    "gzip;q=0.000": None,
    "gzip;q=0, *": None,
    "*;q=0": None,
    "identity": None,
    "identity;q=0": None,
    "deflate, br": None,
    "identity;q=1, gzip;q=0.5": None,
    "*, gzip;q=0.5": None,
    "gzip;q=0.5, identity;q=0.5": MIN_BYTES,
    "gzip, identity;q=0": 0,
    "gzip;q=0.1, *;q=0": 0,
    "*, identity;q=0": 0,
    # What is malformed is left out.
    "gzip;q=2": None,
    "gzip;q=": None,
    "gzip;q=-1": None,
    "gzip;level=9": None,
    "gzip gzip": None,
    "notgzip": None,
    "gzip;q=0.1234": None,
    ", ,gzip,": MIN_BYTES,
    "zip;q=x, gzip": MIN_BYTES,
    "gzip" + " " * 400: MIN_BYTES,
    "gzip" + " " * 500: None,
}


@pytest.mark.parametrize(("accept_encoding", "size"), CASES.items())
def test_smallest_compressed_body_by_accept_encoding(accept_encoding: str | None, size: int | None) -> None:
    assert min_bytes(accept_encoding) == size


def test_equal_bodies_are_compressed_to_equal_bytes() -> None:
    body = b'{"instances": []}' * 100
    assert compress(body) == compress(body)
    assert gzip.decompress(compress(body)) == body
