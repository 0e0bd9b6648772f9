"""Compression of reads on the event loop: once for each body, and large ones on a thread."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from service_registry.asgi.reads.response_cache import CacheKey, ResponseCache
from service_registry.asgi.request import Request
from service_registry.http import compression
from service_registry.http.responses import Response

# Compressing this much takes 0.4 ms.
BYTES_ON_LOOP = 64 * 1024
CONTENT_ENCODING = b"content-encoding: gzip\r\n"


class Compressor:
    """Compresses responses for the clients that accept it.

    Belongs to the event loop. One large body is compressed at once: its other readers wait for the same result, and
    other bodies are sent as they are meanwhile rather than wait in memory.

    Arguments:
        cache: where compressed bodies are kept, beside the plain ones.
    """

    def __init__(self, cache: ResponseCache) -> None:
        self.cache = cache
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="compress")
        self.under_way: asyncio.Future[bytes] | None = None
        # The key and the index of the body that is compressed.
        self.compressing: tuple[CacheKey, str] = (), ""

    async def encode(self, request: Request, response: Response, key: CacheKey = (), index: str = "") -> Response:
        """Return the response in the coding that its client accepts.

        With the key of its body in the cache, and the index of that, the compressed body is kept as well.
        """
        min_bytes = compression.min_bytes(request.header(b"accept-encoding"))
        if min_bytes is None or len(response.body) < max(min_bytes, 1):
            return response
        compressed = self.cache.get((*key, compression.GZIP), index) or await self.compress(response.body, key, index)
        if compressed is None:
            return response
        lines = response.lines + CONTENT_ENCODING
        return Response(response.status, compressed, response.headers, response.media_type, lines)

    async def compress(self, body: bytes, key: CacheKey, index: str) -> bytes | None:
        """Return the body compressed; None for a large one while another is under way."""
        if len(body) <= BYTES_ON_LOOP:
            compressed = compression.compress(body)
        elif self.under_way is None or (key and self.compressing == (key, index)):
            # A reader that leaves must not take the result from the others.
            compressed = await asyncio.shield(self.under_way or self.begin(body, key, index))
        else:
            return None
        if key:
            self.cache.put((*key, compression.GZIP), index, compressed)
        return compressed

    def begin(self, body: bytes, key: CacheKey, index: str) -> asyncio.Future[bytes]:
        self.under_way = asyncio.get_running_loop().run_in_executor(self.thread, compression.compress, body)
        self.under_way.add_done_callback(self.end)
        self.compressing = key, index
        return self.under_way

    def end(self, _done: asyncio.Future[bytes]) -> None:
        self.under_way = None
