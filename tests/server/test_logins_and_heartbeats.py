"""Logins hash passwords on separate threads, so that they do not delay heartbeats."""

import http.client
import re
import socket
from pathlib import Path
from urllib.parse import urlencode

from service_registry.asgi.django_bridge import MAX_LOGINS
from tests.client import registration
from tests.server.registry import Registry

LOGINS = MAX_LOGINS  # further ones would be refused at once
HEARTBEATS = 5


def login_request(port: int) -> bytes:
    """Return a login with a wrong password that passes the CSRF check, so that Django hashes the password."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/admin/login/")
    page = connection.getresponse()
    cookie = str(page.headers["Set-Cookie"]).partition(";")[0]
    found = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.read().decode())
    connection.close()
    assert found
    body = urlencode({"csrfmiddlewaretoken": found[1], "username": "admin", "password": "wrong"})
    lines = ["POST /admin/login/ HTTP/1.1", f"Host: 127.0.0.1:{port}", f"Cookie: {cookie}"]
    lines += ["Content-Type: application/x-www-form-urlencoded", f"Content-Length: {len(body)}", "", body]
    return "\r\n".join(lines).encode()


def test_heartbeats_beside_many_logins_are_answered_before_them(tmp_path: Path) -> None:
    with Registry(tmp_path) as registry:
        team = registry.caller("registry-services", "team")
        assert team.call("POST", "/registry/register", registration("web", ttl_seconds=3600)).status == 201
        (port,) = registry.ports
        request = login_request(port)
        logins = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(LOGINS)]
        for login in logins:
            login.sendall(request)
        heartbeat = {"service_name": "web", "instance_id": "web-1"}
        statuses = [team.call("POST", "/registry/heartbeat", heartbeat).status for _ in range(HEARTBEATS)]
        logins[-1].setblocking(False)
        try:
            answered = logins[-1].recv(1)
        except BlockingIOError:
            answered = b""
        for login in logins:
            login.close()
        assert (statuses, answered) == ([200] * HEARTBEATS, b"")
