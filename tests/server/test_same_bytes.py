"""Reads from memory and reads by Django, of the same registry."""

from collections.abc import Iterator

import pytest

from tests.client import registration
from tests.server.registry import Caller, Registry, Reply
from tests.waiting import wait_for


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("bytes")) as running:
        fill(running)
        yield running


@pytest.fixture
def reader(registry: Registry) -> Caller:
    return registry.caller("registry-readers")


def fill(running: Registry) -> None:
    """Every way in which an instance can stand."""
    team = running.caller("registry-services", "team")
    items = [
        registration("web", "b", host="2001:db8::1", tags=["v2", "canary"], metadata={"version": "2", "q": 'a"\\é'}),
        registration("web", "a", zone="eu", weight=0, metadata={}),
        registration("web", "B", status="DOWN"),
        registration("web", "gone"),
        registration("web", "moved"),
        registration("web", "protected", namespace="test"),
        registration("quiet", "q"),
    ]
    assert team.call("POST", "/registry/register", items).status == 200
    assert team.call("POST", "/registry/register", registration("web", "moved", host="10.9.9.9")).status == 200
    assert team.call("POST", "/registry/deregister", {"service_name": "web", "instance_id": "gone"}).status == 204
    override = {"status": "OUT_OF_SERVICE", "reason": "disk", "until": "2999-01-01T00:00:00Z"}
    assert team.call("PUT", "/registry/instance/web/a/status", override).status == 200
    assert team.call("PUT", "/registry/instance/web/absent/status", override).status == 200
    assert team.call("POST", "/registry/deregister", {"service_name": "quiet", "instance_id": "q"}).status == 204
    running.execute(OLD)
    wait_for(lambda: team.call("GET", "/registry/services/web?state=expired&status=all").json["instances"])


# The registry has heard for two hours, and of one instance nothing for one.
OLD = """
UPDATE service_registry_registrystate SET window_started_at = window_started_at - interval '2 hours';
UPDATE service_registry_lease SET heartbeat_at = heartbeat_at - interval '1 hour'
WHERE instance_id = (SELECT id FROM service_registry_instance WHERE instance_id = 'b')
"""


QUERIES = [
    "",
    "status=all",
    "status=DOWN",
    "status=OUT_OF_SERVICE&status=DOWN",
    "state=expired&status=all",
    "state=all&status=all",
    "protected=false",
    "protected=true",
    "zone=eu&status=all",
    "tag=v2&tag=canary",
    "tag=v3",
    "metadata.version=2",
    "metadata.version=3",
    "namespace=test",
    "namespace=default&status=all",
]


# A header that comes twice is for Django to judge, and so is the whole request.
PAST_MEMORY = {"X-Twice": "1", "x-twice": "2"}
# Those of the web server, and what Django says of the view and of sessions that the API does not have.
NOT_COMPARED = {"date", "server", "connection", "allow", "vary"}


def comparable(reply: Reply) -> tuple[int, dict[str, str], bytes]:
    headers = {name: value for name, value in reply.headers.items() if name not in NOT_COMPARED}
    if reply.status == 304:
        headers = {name: value for name, value in headers.items() if not name.startswith("content-")}
    return reply.status, headers, reply.body


@pytest.mark.parametrize("name", ["web", "quiet"])
@pytest.mark.parametrize("query", QUERIES)
def test_discovery_is_the_same_from_memory_as_by_django(
    registry: Registry, reader: Caller, name: str, query: str
) -> None:
    path = f"/registry/services/{name}?{query}"
    sent = {"X-Request-Id": "the-same"}
    from_memory = comparable(reader.call("GET", path, **sent))
    assert from_memory == comparable(reader.call("GET", path, **sent, **PAST_MEMORY))
    sent["If-None-Match"] = from_memory[1].get("etag", "none")
    unchanged = comparable(reader.call("GET", path, **sent))
    assert unchanged == comparable(reader.call("GET", path, **sent, **PAST_MEMORY))
    assert unchanged[0] in {304, 404}


def test_what_the_feed_brings_is_the_same_as_what_is_loaded(registry: Registry, reader: Caller) -> None:
    """Every document above came through the log; a process that starts now reads the tables."""
    fed = reader.call("GET", "/registry/services/web?status=all&state=all").body
    registry.kill_web()
    loaded = registry.caller("registry-readers").call("GET", "/registry/services/web?status=all&state=all").body
    assert fed == loaded
    assert loaded.count(b"instance_id") == 4
