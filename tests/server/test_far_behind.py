"""A process that has to catch up with another by more than a page of changes."""

import os
import signal
import socket
from pathlib import Path

from tests.client import registration, token
from tests.server.registry import Registry

TRIALS = 4


def test_an_index_that_another_process_gave_is_never_gone(tmp_path: Path) -> None:
    """The other is stopped while an array is taken in, and asked for its index before it goes on. It may say that it
    does not know yet."""
    bearer = token("registry-readers")
    statuses = []
    with Registry(tmp_path, web_processes=2) as registry:
        team = registry.caller("registry-services", "team")
        for trial in range(TRIALS):
            name = f"big-{trial}"
            os.kill(registry.web[1].pid, signal.SIGSTOP)
            try:
                items = [registration(name, f"i-{number}") for number in range(1000)]
                assert team.call("POST", "/registry/register", items).status == 200
                index = team.call("GET", f"/registry/services/{name}?zone=nowhere").json["index"]
                asking = socket.create_connection(("127.0.0.1", registry.ports[1]), timeout=30)
                path = f"/registry/watch?index={index}&wait=0s"
                asking.sendall(
                    f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {bearer}\r\n\r\n".encode()
                )
            finally:
                os.kill(registry.web[1].pid, signal.SIGCONT)
            with asking:
                statuses.append(asking.recv(12).decode())
    assert set(statuses) <= {"HTTP/1.1 200", "HTTP/1.1 503"}
    assert "HTTP/1.1 200" in statuses
