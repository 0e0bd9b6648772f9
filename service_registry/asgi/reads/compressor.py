"""Compression of reads on the event loop: once for each body, and large ones on a thread."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from service_registry.asgi.reads.response_cache import CacheKey, ResponseCache
from service_registry.asgi.request import Request
from service_registry.http import compression
from service_registry.http.responses import Response

# Compressing this much takes 0.4 ms.
BYTES_ON_LOOP = 64 * 1024


class Compressor:
    """Compresses responses for the clients that accept it.

    Belongs to the event loop. One large body is compressed at once: while it is, others are sent as they are rather
    than wait in memory.

    Arguments:
        cache: where compressed bodies are kept, beside the plain ones.
    """

    def __init__(self, cache: ResponseCache) -> None:
        self.cache = cache
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="compress")
        self.is_busy = False

    async def encode(self, request: Request, response: Response, key: CacheKey = (), index: str = "") -> Response:
        """Return the response in the coding that its client accepts.

        With the key of its body in the cache, and the index of that, the compressed body is kept as well.
        """
        min_bytes = compression.min_bytes(request.header(b"accept-encoding"))
        if min_bytes is None or len(response.body) < max(min_bytes, 1):
            return response
        compressed = await self.compress(response.body, key, index)
        if compressed is None:
            return response
        return Response(response.status, compressed, {**response.headers, "Content-Encoding": compression.GZIP})

    async def compress(self, body: bytes, key: CacheKey, index: str) -> bytes | None:
        """Return the body compressed; None for a large one while another is under way."""
        key = (*key, compression.GZIP) if key else ()
        compressed = self.cache.get(key, index)
        if compressed is None and not (self.is_busy and len(body) > BYTES_ON_LOOP):
            compressed = await self.run(body)
            if key:
                self.cache.put(key, index, compressed)
        return compressed

    async def run(self, body: bytes) -> bytes:
        if len(body) <= BYTES_ON_LOOP:
            return compression.compress(body)
        self.is_busy = True
        try:
            return await asyncio.get_running_loop().run_in_executor(self.thread, compression.compress, body)
        finally:
            self.is_busy = False
