"""Check a target over HTTP: one GET, no redirects, no proxy, no cookies, 4 KiB of the answer."""

import asyncio
from collections.abc import Mapping

import h11

from service_registry.health.probes.connection import Streams
from service_registry.health.result import OUTPUT_BYTES, Cause, CheckFailed, Result, printable

USER_AGENT = "service-registry-health-check"
HEAD_BYTES = 16 * 1024
TOO_MANY_REQUESTS = 429


async def check_http(
    streams: Streams, authority: str, path: str, headers: Mapping[str, str], expected: range
) -> Result:
    """Return the result of a GET.

    Args:
        authority: of the Host header.
        expected: the statuses that pass; 429 is a warning, and every other one critical.

    Raises:
        CheckFailed: the answer is no HTTP, or breaks off.
    """
    reader, writer = streams
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES)
    fields = {"Host": authority, "User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity"}
    request = h11.Request(
        method="GET", target=path, headers=[*(fields | dict(headers) | {"Connection": "close"}).items()]
    )
    writer.write((connection.send(request) or b"") + (connection.send(h11.EndOfMessage()) or b""))
    try:
        status, body = await read_answer(reader, connection)
    except (h11.RemoteProtocolError, ConnectionError) as error:
        raise CheckFailed(Cause.PROTOCOL, f"the answer is not HTTP, or breaks off: {error}") from error
    return judge_status(status, body, expected)


async def read_answer(reader: asyncio.StreamReader, connection: h11.Connection) -> tuple[int, bytes]:
    """Return status and body, of which no more than OUTPUT_BYTES are read."""
    status, body = 0, b""
    while len(body) < OUTPUT_BYTES:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(OUTPUT_BYTES))
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += event.data
        elif not isinstance(event, h11.InformationalResponse):
            break
    return status, body


def judge_status(status: int, body: bytes, expected: range) -> Result:
    output = printable(b"HTTP %d\n" % status + body)
    if status in expected:
        return Result(Cause.OK, output)
    if status == TOO_MANY_REQUESTS:
        return Result(Cause.TOO_MANY_REQUESTS, output)
    return Result(Cause.UNEXPECTED_STATUS, output)
