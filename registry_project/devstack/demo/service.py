"""One small service, as `python -m registry_project.devstack.demo.service NAME INSTANCE_ID`.

What any client of the registry does: get a token, register, beat every third of the TTL, deregister when asked to end.
"""

import contextlib
import json
import os
import random
import signal
import socketserver
import sys
import threading
from http.server import BaseHTTPRequestHandler
from typing import Any

from registry_project.devstack.demo.http_json import NoAnswerError, call, fetch_token

TTL_SECONDS = 10
REPEAT_SECONDS = 1.0
TEAM = "team-demo"


class Membership:
    """A process's place in the registry."""

    def __init__(self, name: str, instance_id: str, port: int) -> None:
        self.registry = os.environ["DEMO_REGISTRY"]
        self.key = {"service_name": name, "instance_id": instance_id}
        self.statement = {**self.key, "host": "127.0.0.1", "port": port, "ttl_seconds": TTL_SECONDS}
        self.token = fetch_token(
            os.environ["DEMO_ISSUER"], os.environ["DEMO_SECRET"], instance_id, ["registry-services", TEAM]
        )
        self.registered = False
        self.epoch = 0

    def keep(self, ended: threading.Event) -> None:
        """Register and beat until `ended`, then deregister. A call without a good answer is repeated after a second."""
        pause_seconds = 0.0
        while not ended.wait(pause_seconds):
            try:
                pause_seconds = self.beat() if self.registered else self.register()
            except NoAnswerError:
                pause_seconds = REPEAT_SECONDS
        with contextlib.suppress(NoAnswerError):  # then it expires
            call("POST", f"{self.registry}/registry/deregister", self.token, self.key)

    def register(self) -> float:
        status, answer = call("POST", f"{self.registry}/registry/register", self.token, self.statement)
        self.registered = status in {200, 201}
        if status in {400, 401, 403}:
            sys.exit(f"{self.key['instance_id']} was refused: {answer}")
        if not self.registered:
            return REPEAT_SECONDS
        self.epoch = answer["epoch"]
        return next_beat(answer)

    def beat(self) -> float:
        status, answer = call(
            "POST", f"{self.registry}/registry/heartbeat", self.token, {**self.key, "epoch": self.epoch}
        )
        self.registered = status != 404
        return next_beat(answer) if status == 200 else REPEAT_SECONDS


def next_beat(answer: Any) -> float:
    """Seconds until the next heartbeat: as the registry says, give or take a tenth."""
    return float(answer["lease"]["heartbeat_interval_seconds"]) * random.uniform(0.9, 1.1)  # noqa: S311


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps({"instance_id": sys.argv[2]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the standard library's name
        """The terminal belongs to the demo."""


def main(name: str, instance_id: str) -> None:
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        Membership(name, instance_id, server.server_address[1]).keep(ended)


if __name__ == "__main__":
    main(*sys.argv[1:])
