"""No instance expires while the registry refuses every heartbeat: its processes do not pulse then."""

import time
from pathlib import Path

from django.conf import LazySettings

from registry_project.devstack import issuer
from registry_project.devstack.processes import free_port
from tests.client import registration
from tests.server.registry import Caller, Registry
from tests.waiting import wait_for

TTL_SECONDS = 5
REFUSED_SECONDS = 15  # an instance without heartbeats is off the list after 11
KEY = {"service_name": "web", "instance_id": "web-1"}
EXPIRED = "SELECT count(*) FROM service_registry_change WHERE kind = 'expired'"
AGE_KEYS = "UPDATE service_registry_signingkeys SET fetched_at = fetched_at - interval '8 days'"
DELETE_GROUPS = "DELETE FROM auth_group_permissions; DELETE FROM auth_group"


def send_refused_heartbeats(team: Caller, seconds: float) -> int:
    """Send a heartbeat every second, each answered with 503, and return how many."""
    until, statuses = time.monotonic() + seconds, []
    while time.monotonic() < until:
        statuses.append(team.call("POST", "/registry/heartbeat", KEY).status)
        time.sleep(1)
    assert set(statuses) == {503}
    return len(statuses)


def assert_instance_stayed_listed(registry: Registry, team: Caller, refused: int) -> None:
    """Raise when the instance expired, or does not renew its lease again."""
    (expired,) = registry.sql(EXPIRED)[0]
    print(f"\n{expired} of 1 expired during {refused} refused heartbeats of TTL {TTL_SECONDS} s")
    assert expired == 0
    reply = wait_for(lambda: (it := team.call("POST", "/registry/heartbeat", KEY)).status == 200 and it)
    assert "recovered" not in reply.json


def test_instance_does_not_expire_while_no_process_has_keys(tmp_path: Path, settings: LazySettings) -> None:
    """The provider is down and the stored keys are too old: a process that starts then refuses all tokens."""
    port = free_port()
    settings.OIDC_ISSUER = issuer.url(port)
    serve_keys = ("-m", "registry_project.devstack.issuer", f"--port={port}")
    with Registry(tmp_path, worker=True, migrated=False, variables={"OIDC_ISSUER": settings.OIDC_ISSUER}) as registry:
        registry.migrate()
        provider = registry.start(*serve_keys)
        wait_for(lambda: registry.is_ready(registry.ports[0]))
        team = registry.caller("registry-services", "team")
        assert team.call("POST", "/registry/register", registration(ttl_seconds=TTL_SECONDS)).status == 201
        wait_for(lambda: registry.sql("SELECT 1 FROM service_registry_signingkeys"))
        for process in (provider, registry.web[0]):
            process.kill()
            process.wait()
        registry.execute(AGE_KEYS)
        registry.start_web(registry.ports[0])
        wait_for(lambda: registry.is_alive(registry.ports[0]))
        team = registry.caller("registry-services", "team")
        refused = send_refused_heartbeats(team, REFUSED_SECONDS)
        registry.start(*serve_keys)
        assert_instance_stayed_listed(registry, team, refused)


def test_instance_does_not_expire_while_no_group_grants_permissions(tmp_path: Path) -> None:
    """A database was restored without groups; the next migration creates them."""
    with Registry(tmp_path, worker=True) as registry:
        team = registry.caller("registry-services", "team")
        assert team.call("POST", "/registry/register", registration(ttl_seconds=TTL_SECONDS)).status == 201
        registry.execute(DELETE_GROUPS)
        wait_for(lambda: team.call("POST", "/registry/heartbeat", KEY).status == 503)
        refused = send_refused_heartbeats(team, REFUSED_SECONDS)
        registry.migrate()
        team = registry.caller("registry-services", "team")  # the old connection was idle for too long
        assert_instance_stayed_listed(registry, team, refused)
