"""An asynchronous HTTP client for JSON that costs little CPU: hundreds of connections on one event loop."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any


class NoResponse(Exception):
    """The connection was refused or lost, or the response did not arrive in time."""


@dataclass
class Connection:
    """One keep-alive connection to one port, opened when it is needed."""

    port: int
    bearer: str
    reader: asyncio.StreamReader | None = None
    writer: asyncio.StreamWriter | None = None

    async def call(self, method: str, path: str, body: Any, timeout_seconds: float) -> tuple[int, Any]:
        """Raises NoResponse."""
        try:
            async with asyncio.timeout(timeout_seconds):
                return await self.exchange(method, path, body)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError) as error:
            self.close()
            raise NoResponse(type(error).__name__) from error

    async def connect(self) -> None:
        self.close()
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)

    async def exchange(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        if self.reader is None or self.reader.at_eof():
            await self.connect()
        assert self.reader is not None
        assert self.writer is not None
        content = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {self.bearer}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        self.writer.write(head.encode() + content)
        status, length = parse_head(await self.reader.readuntil(b"\r\n\r\n"))
        if length is None:  # a page of the web server: only its status matters
            self.close()
            return status, None
        answer = await self.reader.readexactly(length)
        return status, json.loads(answer) if answer else None

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None


def parse_head(head: bytes) -> tuple[int, int | None]:
    """Return the status, and the length of the body where it is given. Raises ValueError."""
    lines = head.lower().split(b"\r\n")
    lengths = [line.partition(b":")[2] for line in lines if line.startswith(b"content-length:")]
    return int(lines[0].split(b" ")[1]), int(lengths[0]) if lengths else None
