"""Failover between two PostgreSQL servers: a promoted standby, and a demoted primary that comes back."""

import subprocess
import time
from functools import cached_property
from pathlib import Path

import psycopg
import pytest
from django.db import connections

from registry_project.devstack.postgres import Server
from service_registry.database.base import DatabaseWrapper
from service_registry.database.connection import Connection
from service_registry.replica.connection import FeedConnection, ServerInRecovery, require_primary
from tests.client import Answer, registration
from tests.server.registry import Caller, Registry
from tests.server.standby import Standby
from tests.waiting import wait_for

HEARTBEAT = {"service_name": "web", "instance_id": "a"}
REGISTRY_SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'service-registry%'"
END_SESSIONS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'service-registry%'"


class RegistryOfTwoServers(Registry):
    """Its web processes know the addresses of a primary and its standby."""

    @cached_property
    def standby(self) -> Standby:
        return Standby(self.postgres, self.directory / "standby")

    def start_web(self, port: int) -> subprocess.Popen[bytes]:
        one, other = self.postgres.url, self.standby.server.url
        hosts = f"127.0.0.1:{self.postgres.port},127.0.0.1:{self.standby.server.port}"
        assert one.partition("@")[0] == other.partition("@")[0]
        self.environment["DATABASE_URL"] = f"{one.partition('@')[0]}@{hosts}/registry?target_session_attrs=read-write"
        return super().start_web(port)

    def stop_all(self) -> None:
        super().stop_all()
        if "standby" in self.__dict__:
            self.standby.server.stop()


def stop_at_once(server: Server) -> None:
    server.stop_immediately()
    assert server.process is not None
    server.process.wait()


def read_readiness(registry: Registry, place: int = 0) -> tuple[int, str, str]:
    answer = registry.anonymous_caller(registry.ports[place]).call("GET", "/readyz")
    return answer.status, answer.json["status"], answer.json["checks"]["database"]


def beat(caller: Caller) -> Answer:
    return caller.call("POST", "/registry/heartbeat", HEARTBEAT)


def read_service(caller: Caller) -> Answer:
    return caller.call("GET", "/registry/services/web")


def test_processes_write_to_the_promoted_standby_and_not_to_the_returned_primary(tmp_path: Path) -> None:
    """The first address in the URL is that of the server that fails, and later comes back as a standby."""
    with RegistryOfTwoServers(tmp_path, web_processes=2) as registry:
        assert isinstance(registry, RegistryOfTwoServers)
        callers = [registry.caller("registry-services", "team", place=place) for place in range(2)]
        callers[0].register("web")
        wait_for(lambda: read_service(callers[1]).status == 200)  # the other process learns of it a moment later
        standby, old = registry.standby, registry.postgres
        wait_for(lambda: standby.has_all(registry))
        stop_at_once(old)
        for place, caller in enumerate(callers):
            wait_for(lambda caller=caller: beat(caller).status == 503)  # type: ignore[misc]
            wait_for(lambda place=place: read_readiness(registry, place)[:2] == (200, "degraded"))  # type: ignore[misc]
            wait_for(lambda caller=caller: "x-registry-stale" in read_service(caller).headers)  # type: ignore[misc]
            assert read_service(caller).status == 200
        standby.promote()
        promoted_at = time.monotonic()
        for caller in callers:
            wait_for(lambda caller=caller: beat(caller).status == 200)  # type: ignore[misc]
        print(f"Both processes write {time.monotonic() - promoted_at:.1f} s after the promotion.")
        returned = Standby(standby.server, tmp_path / "returned", port=old.port)
        try:
            check_that_the_returned_primary_is_not_used(registry, returned, callers)
        finally:
            returned.server.stop()


def check_that_the_returned_primary_is_not_used(
    registry: RegistryOfTwoServers, returned: Standby, callers: list[Caller]
) -> None:
    """End all sessions, so that every thread connects anew, and compare what the processes write and read."""
    registry.standby.sql(END_SESSIONS)
    for place, caller in enumerate(callers):
        wait_for(lambda caller=caller: beat(caller).status == 200)  # type: ignore[misc]
        caller.register("web", f"new-{place}")
        assert caller.call("GET", f"/registry/instance/web/new-{place}").status == 200
        wait_for(lambda place=place: read_readiness(registry, place) == (200, "ok", "ok"))  # type: ignore[misc]
    assert registry.standby.sql("SELECT count(*) FROM service_registry_instance") == [(3,)]
    assert registry.standby.sql(REGISTRY_SESSIONS)[0][0] > 0
    # A thread that connects tries this address first, and leaves it at once.
    wait_for(lambda: returned.sql(REGISTRY_SESSIONS) == [(0,)])
    assert returned.sql("SELECT pg_is_in_recovery()") == [(True,)]


def test_demoted_primary_at_the_same_address_is_not_trusted(tmp_path: Path) -> None:
    """The only address leads to a standby of another primary, until that is promoted."""
    with Registry(tmp_path) as registry:
        team = registry.caller("registry-services", "team")
        team.register("web")
        primary = Standby(registry.postgres, tmp_path / "primary")
        demoted = None
        try:
            wait_for(lambda: primary.has_all(registry))
            stop_at_once(registry.postgres)
            primary.promote()
            demoted = Standby(primary.server, tmp_path / "demoted", port=registry.postgres.port)
            wait_for(lambda: read_readiness(registry)[2] == "is a standby, or read-only")
            assert read_readiness(registry)[:2] == (200, "degraded")
            assert beat(team).status == 503
            assert team.call("GET", "/registry/instance/web/a").status == 503
            wait_for(lambda: "x-registry-stale" in read_service(team).headers)
            assert read_service(team).status == 200
            wait_for(lambda: demoted.sql(REGISTRY_SESSIONS) == [(0,)])
            check_that_connections_to_a_standby_are_given_up(demoted)
            demoted.promote()
            wait_for(lambda: beat(team).status == 200)
            wait_for(lambda: read_readiness(registry) == (200, "ok", "ok"))
            assert team.call("POST", "/registry/register", registration("web", "b")).status == 201
        finally:
            primary.server.stop()
            if demoted:
                demoted.server.stop()


def check_that_connections_to_a_standby_are_given_up(standby: Standby) -> None:
    """Connect as through a pooler that has replaced the server behind the connection."""
    wrapper = DatabaseWrapper(connections["default"].settings_dict, "standby")
    wrapper.connection = Connection.connect(standby.server.url)
    assert not wrapper.is_usable()
    wrapper.connection.close()
    assert not wrapper.is_usable()
    with FeedConnection.connect(standby.server.url) as connection, pytest.raises(ServerInRecovery):
        require_primary(connection)
    with pytest.raises(psycopg.OperationalError, match="hot standby"):
        Connection.connect(standby.server.url, target_session_attrs="primary")
