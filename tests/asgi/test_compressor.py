"""Compression on the event loop: once for each body, and one large body at a time."""

import asyncio
import gzip
from functools import partial

import pytest

from service_registry.asgi.reads.compressor import BYTES_ON_LOOP, Compressor
from service_registry.asgi.reads.response_cache import ResponseCache
from service_registry.asgi.request import Request
from service_registry.http.responses import Response
from tests.asgi.clients import make_request, request_scope

KEY, OTHER_KEY = ("default", "web", ""), ("default", "api", "")
SMALL, LARGE = b"[1, 2]" * 1000, b"[1, 2]" * BYTES_ON_LOOP


def request_for(accepted: str) -> Request:
    return make_request(request_scope("GET", "/", {"Accept-Encoding": accepted}))


@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["small", "large"])
def test_body_is_compressed_once_and_counted_in_the_cache(body: bytes) -> None:
    async def scenario() -> None:
        cache = ResponseCache()
        compressor = Compressor(cache)
        first, second = [await compressor.encode(request_for("gzip"), Response(200, body), KEY, "m-1") for _ in "12"]
        assert gzip.decompress(first.body) == body
        assert second.body is first.body is cache.get((*KEY, "gzip"), "m-1")
        assert len(first.body) < cache.held_bytes < len(first.body) + 2000
        newer = await compressor.encode(request_for("gzip"), Response(200, body + b" "), KEY, "m-2")
        assert gzip.decompress(newer.body) == body + b" "

    asyncio.run(scenario())


def test_body_without_a_key_is_not_kept() -> None:
    cache = ResponseCache()
    response = asyncio.run(Compressor(cache).encode(request_for("gzip"), Response(200, SMALL)))
    assert (gzip.decompress(response.body), cache.entries) == (SMALL, {})


def test_large_body_is_sent_plain_while_another_is_compressed() -> None:
    async def scenario() -> None:
        compressor = Compressor(ResponseCache())
        both = [compressor.encode(request_for("gzip"), Response(200, LARGE), key, "m-1") for key in (KEY, OTHER_KEY)]
        first, second = await asyncio.gather(*both)
        assert gzip.decompress(first.body) == second.body == LARGE
        assert (first.lines, second.lines) == (b"content-encoding: gzip\r\n", b"")
        third = await compressor.encode(request_for("gzip"), Response(200, LARGE), OTHER_KEY, "m-1")
        assert gzip.decompress(third.body) == LARGE

    asyncio.run(scenario())


def test_readers_of_one_large_body_share_its_compression() -> None:
    async def scenario() -> None:
        compressor = Compressor(ResponseCache())
        read = partial(compressor.encode, request_for("gzip"), Response(200, LARGE), KEY)
        leaving = asyncio.create_task(read("m-1"))
        others = [asyncio.create_task(read(index)) for index in ("m-1", "m-1", "m-2")]
        await asyncio.sleep(0)
        leaving.cancel()
        one, same, newer = await asyncio.gather(*others)
        assert leaving.cancelled()
        assert gzip.decompress(one.body) == LARGE
        assert same.body is one.body
        assert newer.body == LARGE

    asyncio.run(scenario())
