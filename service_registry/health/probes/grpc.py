"""Check a target with the standard health service of gRPC (grpc.health.v1)."""

import grpc
from django.conf import settings
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service_registry.health.network import Address
from service_registry.health.result import OUTPUT_BYTES, Cause, Result, printable

CAUSES = {
    grpc.StatusCode.DEADLINE_EXCEEDED: Cause.TIMEOUT,
    grpc.StatusCode.UNAVAILABLE: Cause.UNREACHABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Cause.TOO_MANY_REQUESTS,
}
# No proxy, no name resolution, no retries and no service configuration of the target; an answer of a few bytes.
OPTIONS = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", OUTPUT_BYTES),
)


async def check_grpc(address: Address, port: int, authority: str, uses_tls: bool, seconds: float) -> Result:
    """Return the status of the server as a whole.

    Args:
        authority: the name by which the target is called, and which its certificate must have.
        seconds: how long connecting and the call may take.
    """
    target = f"ipv4:{address}:{port}" if address.version == 4 else f"ipv6:[{address}]:{port}"
    options = [*OPTIONS, ("grpc.default_authority", authority)]
    async with open_channel(target, options, uses_tls) as channel:
        try:
            answer = await health_pb2_grpc.HealthStub(channel).Check(  # type: ignore[attr-defined] # not in the stubs
                health_pb2.HealthCheckRequest(), timeout=seconds, wait_for_ready=False
            )
        except grpc.aio.AioRpcError as error:
            cause = CAUSES.get(error.code(), Cause.PROTOCOL)
            return Result(cause, printable(f"gRPC {error.code().name}: {error.details()}".encode()))
    name = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    if answer.status == health_pb2.HealthCheckResponse.SERVING:
        return Result(Cause.OK, name)
    return Result(Cause.NOT_SERVING, name)


def open_channel(target: str, options: list[tuple[str, object]], uses_tls: bool) -> grpc.aio.Channel:
    if not uses_tls:
        return grpc.aio.insecure_channel(target, options)
    roots = None
    if settings.REGISTRY_HEALTH_CA_FILE:
        with open(settings.REGISTRY_HEALTH_CA_FILE, "rb") as file:
            roots = file.read()
    return grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(roots), options)
