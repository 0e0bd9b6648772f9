"""Indexes that one web process gives and another one has not read yet."""

import os
import signal
import socket
from pathlib import Path

from tests.client import registration, token
from tests.server.registry import Registry

TRIALS = 4


def test_watch_from_an_index_of_another_process_is_never_gone(tmp_path: Path) -> None:
    """The other process is stopped while more than a page of changes is committed, and gets the request before it
    continues. It may respond that it does not know yet (503)."""
    bearer = token("registry-readers")
    statuses = []
    with Registry(tmp_path, web_processes=2) as registry:
        team = registry.caller("registry-services", "team")
        for trial in range(TRIALS):
            name = f"big-{trial}"
            os.kill(registry.web[1].pid, signal.SIGSTOP)
            try:
                items = [registration(name, f"i-{number}", ttl_seconds=3600) for number in range(1000)]
                assert team.call("POST", "/registry/register", items).status == 200
                index = team.call("GET", f"/registry/services/{name}?zone=nowhere").json["index"]
                connection = socket.create_connection(("127.0.0.1", registry.ports[1]), timeout=60)
                head = f"GET /registry/watch?index={index}&wait=0s HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                connection.sendall(f"{head}Authorization: Bearer {bearer}\r\n\r\n".encode())
            finally:
                os.kill(registry.web[1].pid, signal.SIGCONT)
            with connection:
                statuses.append(connection.recv(12).decode())
    assert set(statuses) <= {"HTTP/1.1 200", "HTTP/1.1 503"}
    assert "HTTP/1.1 200" in statuses
