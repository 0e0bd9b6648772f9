"""Run an example service: python -m ...demo.service NAME INSTANCE_ID.

Like every client of the registry it gets a token, registers, sends a heartbeat every third of the TTL, and deregisters
when it gets SIGTERM. All calls carry the incarnation of this process, so that none has an effect on its successor.
"""

import contextlib
import json
import os
import random
import signal
import socketserver
import sys
import threading
import uuid
from http.server import BaseHTTPRequestHandler
from typing import Any

from registry_project.devstack.demo.http_json import NoAnswerError, call, fetch_token

TTL_SECONDS = 10
RETRY_SECONDS = 1.0
TEAM = "team-demo"


class Registration:
    """The registration of this process, with its heartbeats."""

    def __init__(self, name: str, instance_id: str, port: int) -> None:
        self.registry = os.environ["DEMO_REGISTRY"]
        self.key = {"service_name": name, "instance_id": instance_id, "incarnation": str(uuid.uuid4())}
        self.instance = {**self.key, "host": "127.0.0.1", "port": port, "ttl_seconds": TTL_SECONDS}
        self.token = fetch_token(
            os.environ["DEMO_ISSUER"], os.environ["DEMO_SECRET"], instance_id, ["registry-services", TEAM]
        )
        self.registered = False

    def keep(self, stopped: threading.Event) -> None:
        """Register and send heartbeats until `stopped`, then deregister.

        A failed call is repeated after a second. Raises SystemExit when the registry refuses this process for good: it
        may not register, an operator has removed it, or another process has its id. It must not deregister then.
        """
        pause_seconds = 0.0
        while not stopped.wait(pause_seconds):
            try:
                pause_seconds = self.send_heartbeat() if self.registered else self.register()
            except NoAnswerError:
                pause_seconds = RETRY_SECONDS
        with contextlib.suppress(NoAnswerError):  # the instance expires
            call("POST", f"{self.registry}/registry/deregister", self.token, self.key)

    def register(self) -> float:
        status, answer = call("POST", f"{self.registry}/registry/register", self.token, self.instance)
        self.registered = status in {200, 201}
        if status in {400, 401, 403}:
            sys.exit(f"{self.key['instance_id']} may not register: {answer}")
        return heartbeat_pause(answer) if self.registered else RETRY_SECONDS

    def send_heartbeat(self) -> float:
        status, answer = call("POST", f"{self.registry}/registry/heartbeat", self.token, self.key)
        if status == 409:
            sys.exit(f"{self.key['instance_id']} stops: another process has registered under its id")
        if status == 404 and answer["reason"] == "deregistered":
            sys.exit(f"{self.key['instance_id']} stops: it was removed from the list")
        self.registered = status != 404
        return heartbeat_pause(answer) if status == 200 else RETRY_SECONDS


def heartbeat_pause(answer: Any) -> float:
    """Return the seconds until the next heartbeat: the lease's interval, ±10 %."""
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
        """Log nothing: the terminal shows the demo."""


def main(name: str, instance_id: str) -> None:
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        Registration(name, instance_id, server.server_address[1]).keep(stopped)


if __name__ == "__main__":
    main(*sys.argv[1:])
