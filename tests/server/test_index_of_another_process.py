"""Indexes that one web process gave and another one has not read yet."""

import http.client
import json
import os
import signal
import socket
from collections.abc import Iterator
from functools import partial
from urllib.parse import quote

import pytest

from tests.client import registration, token
from tests.server.registry import Caller, Registry
from tests.waiting import wait_for

TRIALS = 4


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("two-processes"), web_processes=2) as running:
        yield running


def test_watch_from_an_index_of_another_process_is_never_gone(registry: Registry, team: Caller) -> None:
    """The other process is stopped while more than a page of changes is committed, and gets the request before it
    continues. It may respond that it does not know yet (503), and knows a moment later."""
    bearer = token("registry-readers")
    other = registry.caller("registry-readers", place=1)
    for trial in range(TRIALS):
        name = f"large-{trial}"
        os.kill(registry.web[1].pid, signal.SIGSTOP)
        try:
            items = [registration(name, f"i-{number}", ttl_seconds=3600) for number in range(1000)]
            assert team.call("POST", "/registry/register", items).status == 200
            index = team.call("GET", f"/registry/services/{name}?zone=nowhere").json["index"]
            connection = socket.create_connection(("127.0.0.1", registry.ports[1]), timeout=60)
            path = f"/registry/watch?index={index}&wait=0s"
            head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            connection.sendall(f"{head}Authorization: Bearer {bearer}\r\n\r\n".encode())
        finally:
            os.kill(registry.web[1].pid, signal.SIGCONT)
        with connection:
            assert connection.recv(12) in {b"HTTP/1.1 200", b"HTTP/1.1 503"}
        wait_for(partial(is_answered, other, path))


def is_answered(caller: Caller, path: str) -> bool:
    """Return whether the process knows the index now. Until then it must respond 503."""
    status = caller.call("GET", path).status
    assert status in {200, 503}
    return status == 200


def test_page_of_another_process_is_not_older_than_the_first_page(registry: Registry, team: Caller) -> None:
    """A client watches from the first page's index: a later page must contain all changes up to it.

    The other process is stopped while more than a page of changes is committed, and gets the request for the second
    page before it continues. It may respond that it cannot say yet (503), and can a moment later.
    """
    bearer = token("registry-readers")
    other = registry.caller("registry-readers", place=1)
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
            assert response.status in {200, 503}
            page = json.loads(response.read())
        connection.close()
        if response.status == 503:
            wait_for(partial(is_answered, other, path))
            page = other.call("GET", path).json
        assert page["services"][0]["instances"][0]["weight"] == trial
