"""Discovery from memory by ASGI, and from the database by WSGI: the same responses."""

from collections.abc import Iterator

import pytest

from tests.client import registration, token
from tests.server.registry import Caller, Registry, comparable
from tests.waiting import wait_for


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("bytes")) as running:
        register_all_states(running)
        yield running


@pytest.fixture
def reader(registry: Registry) -> Caller:
    return registry.caller("registry-readers")


def register_all_states(running: Registry) -> None:
    """Register instances of every state and status."""
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
    running.execute(EXPIRE_ONE)
    wait_for(lambda: team.call("GET", "/registry/services/web?state=expired&status=all").json["instances"])


# The observation window is three days old, and one lease's last heartbeat two.
EXPIRE_ONE = """
UPDATE service_registry_registrystate SET window_started_at = window_started_at - interval '3 days';
UPDATE service_registry_lease SET heartbeat_at = heartbeat_at - interval '2 days'
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


@pytest.fixture(scope="module")
def wsgi_reader(registry: Registry) -> Iterator[Caller]:
    caller = Caller(registry.start_wsgi(), token("registry-readers"))
    yield caller
    caller.connection.close()


@pytest.mark.parametrize("name", ["web", "quiet"])
@pytest.mark.parametrize("query", QUERIES)
def test_discovery_returns_the_same_response_by_asgi_and_by_wsgi(
    reader: Caller, wsgi_reader: Caller, name: str, query: str
) -> None:
    path = f"/registry/services/{name}?{query}"
    sent = {"X-Request-Id": "the-same"}
    by_asgi = comparable(reader.call("GET", path, **sent))
    assert by_asgi == comparable(wsgi_reader.call("GET", path, **sent))
    sent["If-None-Match"] = by_asgi[1].get("etag", "none")
    unchanged = comparable(reader.call("GET", path, **sent))
    assert unchanged == comparable(wsgi_reader.call("GET", path, **sent))
    assert unchanged[0] in {304, 404}


@pytest.mark.parametrize("name", ["WEB", "Quiet", "nowhere", "no..name", "%20", "web/", "w%65b"])
@pytest.mark.parametrize("query", ["", "namespace=default", "zone=eu&status=all"])
def test_query_that_was_sent_before_is_answered_by_name(
    reader: Caller, wsgi_reader: Caller, name: str, query: str
) -> None:
    """The query is known from another service; the name is looked at each time."""
    assert reader.call("GET", f"/registry/services/web?{query}").status == 200
    sent = {"X-Request-Id": "the-same"}
    by_asgi, by_wsgi = (
        comparable(caller.call("GET", f"/registry/services/{name}?{query}", **sent)) for caller in (reader, wsgi_reader)
    )
    assert by_asgi == by_wsgi


def test_discovery_after_a_restart_returns_what_the_feed_had_brought(registry: Registry, reader: Caller) -> None:
    """The feed reads documents from the log; a process that starts reads them from the tables."""
    path = "/registry/services/web?status=all&state=all"
    fed = reader.call("GET", path).body
    registry.kill_web()
    loaded = registry.caller("registry-readers").call("GET", path).body
    assert fed == loaded
    assert loaded.count(b"instance_id") == 4
