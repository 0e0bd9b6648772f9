"""A relay to the database that can drop the reply to a COMMIT, although the transaction is committed."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Any

from django.db import connection


class RelayHandler(BaseRequestHandler):
    """Passes bytes both ways, and closes the connection instead of passing the reply to a COMMIT that is to be lost."""

    server: "CommitRelay"

    def handle(self) -> None:
        with socket.create_connection(self.server.database) as database, suppress(OSError):
            self.committed = False
            threading.Thread(target=self.forward_requests, args=[database], daemon=True).start()
            while reply := database.recv(65536):
                if self.committed and self.server.replies_to_lose:
                    self.server.replies_to_lose -= 1
                    self.server.replies_lost += 1
                    break
                self.request.sendall(reply)
            self.request.shutdown(socket.SHUT_RDWR)

    def forward_requests(self, database: socket.socket) -> None:
        with suppress(OSError):
            while request := self.request.recv(65536):
                self.committed = b"COMMIT" in request
                database.sendall(request)
            database.shutdown(socket.SHUT_RDWR)


class CommitRelay(ThreadingTCPServer):
    daemon_threads = True

    def __init__(self, database: tuple[str, int]) -> None:
        super().__init__(("127.0.0.1", 0), RelayHandler)
        self.database = database
        self.replies_to_lose = 0
        self.replies_lost = 0


@contextmanager
def relayed_database() -> Iterator[CommitRelay]:
    """Connect this process to its database through a relay; `replies_to_lose` counts the replies it is yet to drop."""
    settings: dict[str, Any] = connection.settings_dict
    before = {name: settings[name] for name in ("HOST", "PORT")}
    connection.close()
    with CommitRelay((before["HOST"], int(before["PORT"]))) as relay:
        threading.Thread(target=relay.serve_forever, args=[0.02], daemon=True).start()
        settings.update(HOST="127.0.0.1", PORT=relay.server_address[1])
        try:
            yield relay
        finally:
            connection.close()
            settings.update(before)
            relay.shutdown()
