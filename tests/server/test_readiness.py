"""A web process is ready once it has migrations and keys, and not before."""

from pathlib import Path

from registry_project.devstack import issuer
from registry_project.devstack.processes import free_port
from tests.client import registration
from tests.server.registry import Registry
from tests.waiting import wait_for


def test_it_is_ready_once_it_has_migrations_and_keys(tmp_path: Path) -> None:
    port = free_port()
    with Registry(tmp_path, migrated=False, variables={"OIDC_ISSUER": issuer.url(port)}) as registry:

        def failing() -> set[str]:
            reply = registry.anonymous_caller().call("GET", "/readyz")
            assert (reply.status == 200) == (reply.json["status"] != "unavailable")
            assert reply.status == 200 or (reply.status, reply.headers["retry-after"]) == (503, "1")
            return {name for name in ("keys", "migrations") if reply.json["checks"][name] != "ok"}

        assert failing() == {"keys", "migrations"}
        registry.migrate()
        assert failing() == {"keys"}
        registry.execute("DELETE FROM service_registry_registrystate")  # it is made last, when all are applied
        assert failing() == {"keys"}
        registry.migrate()
        refused = registry.caller("registry-services", "team").call("POST", "/registry/register", registration())
        assert (refused.status, refused.json["code"]) == (503, "unavailable")
        assert int(refused.headers["retry-after"]) > 0
        registry.start("-m", "registry_project.devstack.issuer", f"--port={port}")
        wait_for(lambda: not failing())
