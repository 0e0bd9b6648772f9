"""/readyz of a web process that lacks its tables or the issuer's keys."""

from pathlib import Path

from registry_project.devstack import issuer
from registry_project.devstack.processes import free_port
from tests.client import registration
from tests.server.registry import Registry
from tests.waiting import wait_for


def test_process_is_ready_once_it_has_migrations_and_keys(tmp_path: Path) -> None:
    port = free_port()
    with Registry(tmp_path, migrated=False, variables={"OIDC_ISSUER": issuer.url(port)}) as registry:

        def read_failures() -> set[str]:
            reply = registry.anonymous_caller().call("GET", "/readyz")
            assert (reply.status == 200) == (reply.json["status"] != "unavailable")
            assert reply.status == 200 or (reply.status, reply.headers["retry-after"]) == (503, "1")
            return {name for name in ("keys", "migrations") if reply.json["checks"][name] != "ok"}

        assert read_failures() == {"keys", "migrations"}
        registry.migrate()
        assert read_failures() == {"keys"}
        registry.execute("DELETE FROM service_registry_registrystate")  # the last migration makes this row
        assert read_failures() == {"keys"}
        registry.migrate()
        refused = registry.caller("registry-services", "team").call("POST", "/registry/register", registration())
        assert (refused.status, refused.json["code"]) == (503, "unavailable")
        assert int(refused.headers["retry-after"]) > 0
        registry.start("-m", "registry_project.devstack.issuer", f"--port={port}")
        wait_for(lambda: not read_failures())
