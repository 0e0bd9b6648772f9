"""A way to the database on which the answer to a commit is lost: it is done, and nobody is told."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Any

from django.db import connection


class Relay(BaseRequestHandler):
    """Passes bytes both ways, until the answer to a commit that is to be lost: then it ends the connection."""

    server: "Losing"

    def handle(self) -> None:
        with socket.create_connection(self.server.database) as database, suppress(OSError):
            self.committed = False
            threading.Thread(target=self.pass_on, args=[database], daemon=True).start()
            while answer := database.recv(65536):
                if self.committed and self.server.to_lose:
                    self.server.to_lose -= 1
                    self.server.lost += 1
                    break
                self.request.sendall(answer)
            self.request.shutdown(socket.SHUT_RDWR)

    def pass_on(self, database: socket.socket) -> None:
        with suppress(OSError):
            while asked := self.request.recv(65536):
                self.committed = b"COMMIT" in asked
                database.sendall(asked)
            database.shutdown(socket.SHUT_RDWR)


class Losing(ThreadingTCPServer):
    daemon_threads = True

    def __init__(self, database: tuple[str, int]) -> None:
        super().__init__(("127.0.0.1", 0), Relay)
        self.database = database
        self.to_lose = 0
        self.lost = 0


@contextmanager
def losing_way() -> Iterator[Losing]:
    """The process's database by way of a relay; `to_lose` says of how many commits from now on the answer is lost."""
    settings: dict[str, Any] = connection.settings_dict
    before = {name: settings[name] for name in ("HOST", "PORT")}
    connection.close()
    with Losing((before["HOST"], int(before["PORT"]))) as relay:
        threading.Thread(target=relay.serve_forever, args=[0.02], daemon=True).start()
        settings.update(HOST="127.0.0.1", PORT=relay.server_address[1])
        try:
            yield relay
        finally:
            connection.close()
            settings.update(before)
            relay.shutdown()
