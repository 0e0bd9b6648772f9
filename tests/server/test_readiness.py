"""/readyz of a web process that lacks tables or keys, or whose database is frozen."""

import select
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from registry_project.devstack import issuer
from registry_project.devstack.processes import free_port
from tests.client import registration
from tests.server.registry import Caller, Registry
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


def test_probe_of_a_read_only_primary_is_200_and_degraded(tmp_path: Path) -> None:
    with Registry(tmp_path) as registry:

        def probe() -> tuple[int, str, str]:
            answer = registry.anonymous_caller().call("GET", "/readyz")
            return answer.status, answer.json["status"], answer.json["checks"]["database"]

        team = registry.caller("registry-services", "team")
        team.register("web")
        for value, expected in (("on", "is a standby, or read-only"), ("off", "ok")):
            registry.configure("default_transaction_read_only", value)
            wait_for(lambda expected=expected: probe()[2] == expected)  # type: ignore[misc]
            assert probe()[:2] == (200, "ok" if value == "off" else "degraded")
            beat = team.call("POST", "/registry/heartbeat", {"service_name": "web", "instance_id": "a"})
            assert beat.status == (200 if value == "off" else 503)


PROBES = 20
FROZEN_SECONDS = 8.0


def test_probes_of_a_frozen_database_are_200_and_degraded(tmp_path: Path) -> None:
    """Many balancers probe at once. Were each probe to wait for the database, the last would wait for a minute."""
    with Registry(tmp_path) as registry, ThreadPoolExecutor(PROBES) as threads:
        team = registry.caller("registry-services", "team")
        team.register("web")

        def probe(_number: int) -> tuple[int, str]:
            answer = Caller(registry.ports[0], None, timeout_seconds=10).call("GET", "/readyz", Connection="close")
            return answer.status, answer.json["status"]

        answers: list[tuple[int, str]] = []
        with registry.frozen_postgres():
            began = time.monotonic()
            while time.monotonic() < began + FROZEN_SECONDS:
                answers += threads.map(probe, range(PROBES))
            read = team.call("GET", "/registry/services/web")
        assert set(answers) == {(200, "degraded")}
        assert (read.status, "x-registry-stale" in read.headers) == (200, True)
        print(f"{len(answers)} probes in {FROZEN_SECONDS:g} s of a frozen database: all 200 and degraded")
        wait_for(lambda: probe(0) == (200, "ok"))


def test_probe_does_not_wait_until_a_frozen_database_is_given_up(tmp_path: Path) -> None:
    """A read that began before the probe still waits for the database when the probe is answered."""
    with Registry(tmp_path) as registry:
        reader, prober = registry.caller("registry-readers"), registry.anonymous_caller()
        assert reader.call("GET", "/registry/instance/web/a").status == 404
        with registry.frozen_postgres():
            reader.connection.request("GET", "/registry/instance/web/a", headers=reader.headers)
            time.sleep(0.5)  # a probe that waits as long as the read ends that much after it
            answer = prober.call("GET", "/readyz")
            is_read_answered, _, _ = select.select([reader.connection.sock], [], [], 0)
            assert reader.receive().status == 503
        assert (answer.status, answer.json["status"]) == (200, "degraded")
        assert answer.json["checks"]["database"] == "does not answer"
        assert not is_read_answered
