"""Indexes that one web process gave and another one has not read yet."""

import http.client
import json
import os
import signal
import socket
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from tests.client import registration, token
from tests.server.registry import Caller, Registry

TRIALS = 4


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("two-processes"), web_processes=2) as running:
        yield running


def test_watch_from_an_index_of_another_process_is_never_gone(registry: Registry, team: Caller) -> None:
    """The other process is stopped while more than a page of changes is committed, and gets the request before it
    continues. It may respond that it does not know yet (503)."""
    bearer = token("registry-readers")
    statuses = []
    for trial in range(TRIALS):
        name = f"large-{trial}"
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


def test_page_of_another_process_is_not_older_than_the_first_page(registry: Registry, team: Caller) -> None:
    """A client watches from the first page's index: a later page must contain all changes up to it.

    The other process is stopped while more than a page of changes is committed, and gets the request for the second
    page before it continues. It may respond that it cannot say yet (503).
    """
    bearer = token("registry-readers")
    replies = []
    team.register("walk-a")
    team.register("walk-b")
    for trial in range(1, TRIALS + 1):
        os.kill(registry.web[1].pid, signal.SIGSTOP)
        try:
            items = [registration(f"big-{trial}", f"i-{number}", ttl_seconds=3600) for number in range(1000)]
            assert team.call("POST", "/registry/register", items).status == 200
            team.register("walk-b", weight=trial)
            first = team.call("GET", "/registry/services?name=walk-*&limit=1").json
            connection = http.client.HTTPConnection("127.0.0.1", registry.ports[1], timeout=60)
            path = f"/registry/services?name=walk-*&limit=1&after={quote(first['next'])}"
            connection.request("GET", path, headers={"Authorization": f"Bearer {bearer}"})
        finally:
            os.kill(registry.web[1].pid, signal.SIGCONT)
        with connection.getresponse() as response:
            page = json.loads(response.read())
            replies.append((trial, response.status, page))
        connection.close()
    assert {status for _trial, status, _page in replies} <= {200, 503}
    pages = [(trial, page) for trial, status, page in replies if status == 200]
    assert pages
    assert [page["services"][0]["instances"][0]["weight"] for _trial, page in pages] == [
        trial for trial, _page in pages
    ]
