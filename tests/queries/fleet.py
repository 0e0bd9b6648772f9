"""Four instances of three services that differ in zone, tags, metadata and status."""

from tests.client import Api


def register_four_instances(payments: Api) -> None:
    payments.register("api", "a-1", zone="eu", tags=["canary", "v2"], metadata={"version": "2"})
    payments.register("api", "a-2", zone="us", tags=["v2"], status="DOWN", owner="team-payments")
    payments.register("web", "w-1", zone="eu", metadata={"version": "2", "tier": "front"})
    payments.register("web", "w-2", namespace="test")
