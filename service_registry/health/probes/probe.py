"""Probe one target, within its timeout."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from service_registry.health.network import NetworkRule
from service_registry.health.probes.connection import connect, resolve
from service_registry.health.probes.grpc import check_grpc
from service_registry.health.probes.http import check_http
from service_registry.health.probes.tls import tls_context
from service_registry.health.result import Cause, CheckFailed, Result


@dataclass(frozen=True, slots=True)
class Target:
    """A target, and how it is checked.

    Attributes:
        host: an address, or a name that is resolved at each check.
        uses_tls: of gRPC; the type says it for HTTP.
        expected: the HTTP statuses that pass.
    """

    type: Literal["http", "https", "tcp", "grpc"]
    host: str
    port: int
    timeout_seconds: float
    path: str = "/"
    headers: Mapping[str, str] = field(default_factory=dict)
    expected: range = range(200, 300)
    tls_verify: bool = True
    uses_tls: bool = False

    @property
    def authority(self) -> str:
        """Host and port as a URL has them (RFC 3986, section 3.2.2)."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


async def probe(target: Target, rule: NetworkRule) -> Result:
    """Return the result of one check, after `timeout_seconds` at most. It never raises for what a target does."""
    try:
        async with asyncio.timeout(target.timeout_seconds):
            return await check(target, rule)
    except TimeoutError:
        return Result(Cause.TIMEOUT, f"no answer within {target.timeout_seconds:g} s")
    except CheckFailed as failure:
        return Result(failure.cause, str(failure))


async def check(target: Target, rule: NetworkRule) -> Result:
    addresses = await resolve(target.host, target.port, rule)
    if target.type == "grpc":
        return await check_grpc(addresses[0], target.port, target.authority, target.uses_tls, target.timeout_seconds)
    context = tls_context(target.tls_verify) if target.type == "https" else None
    async with connect(addresses, target.port, context, target.host) as streams:
        if target.type == "tcp":
            return Result(Cause.OK, f"{target.authority} accepts connections")
        return await check_http(streams, target.authority, target.path, target.headers, target.expected)
