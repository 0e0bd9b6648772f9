"""Connect to a target under the network rule.

Its name is resolved once, every address is judged, and the connection goes to an address that was judged: a second
resolution could give another one (DNS rebinding).
"""

import asyncio
import errno
import socket
import ssl
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from service_registry.health.network import Address, ForbiddenAddress, NetworkRule, parse_address
from service_registry.health.result import OUTPUT_BYTES, Cause, CheckFailed

# The resolver blocks, and outlasts its check where a name server does not answer. With fewer threads than checks whose
# names nobody answers, all other names would wait for them, and fail.
resolver_threads = ThreadPoolExecutor(400, thread_name_prefix="resolver")
# For resolv.conf(5), in place of 5 s and two attempts for each name server.
RESOLVER_OPTIONS = "timeout:1 attempts:1"

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def resolve(host: str, port: int, rule: NetworkRule) -> list[Address]:
    """Return the addresses of a host, all of which the rule allows.

    Raises CheckFailed: the host has no address, or one that is forbidden.
    """
    try:
        addresses = [parse_address(host)]
    except ValueError:
        addresses = await look_up(host, port)
    try:
        rule.require_all(addresses, port)
    except ForbiddenAddress as error:
        raise CheckFailed(Cause.FORBIDDEN_ADDRESS, str(error)) from error
    return addresses


async def look_up(name: str, port: int) -> list[Address]:
    def run() -> list[Address]:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
        return list(dict.fromkeys(parse_address(str(address[0])) for *_, address in found))

    try:
        return await asyncio.get_running_loop().run_in_executor(resolver_threads, run)
    except (socket.gaierror, UnicodeError) as error:
        raise CheckFailed(Cause.NAME, f"{name} has no address") from error


@asynccontextmanager
async def connect(
    addresses: list[Address], port: int, context: ssl.SSLContext | None = None, server_name: str | None = None
) -> AsyncIterator[Streams]:
    """Open a connection to the first address that accepts one, and close it at the end.

    Raises CheckFailed: no address accepts a connection, or TLS fails.
    """
    reader, writer = await connect_to_any(addresses, port, context, server_name)
    try:
        yield reader, writer
    finally:
        # What was not read is not waited for.
        writer.transport.abort()


async def connect_to_any(
    addresses: list[Address], port: int, context: ssl.SSLContext | None, server_name: str | None
) -> Streams:
    failure = CheckFailed(Cause.UNREACHABLE, "there is no address")
    for address in addresses:
        try:
            reader, writer = await asyncio.open_connection(
                str(address), port, ssl=context, server_hostname=server_name if context else None, limit=OUTPUT_BYTES
            )
        except ssl.SSLError as error:
            failure = CheckFailed(Cause.TLS, f"TLS with {address} port {port} failed: {error.reason or error}")
        except ConnectionRefusedError:
            failure = CheckFailed(Cause.REFUSED, f"{address} refuses connections on port {port}")
        except OSError as error:
            name = errno.errorcode.get(error.errno or 0, type(error).__name__)
            failure = CheckFailed(Cause.UNREACHABLE, f"{address} port {port} cannot be reached: {name}")
        else:
            require_peer(writer, address)
            return reader, writer
    raise failure


def require_peer(writer: asyncio.StreamWriter, address: Address) -> None:
    """Raise CheckFailed unless the connection leads to the address that was judged."""
    peer = writer.get_extra_info("peername")
    if peer is None or parse_address(str(peer[0])) != address:
        writer.transport.abort()
        raise CheckFailed(Cause.FORBIDDEN_ADDRESS, f"the connection to {address} leads elsewhere")
