"""What happens in the demo, and what must be seen while it does."""

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable

from registry_project.devstack import processes
from registry_project.devstack.demo.http_json import NoAnswerError, call, fetch_token
from registry_project.devstack.demo.running import Registry
from registry_project.devstack.demo.service import TTL_SECONDS

SERVICES = ("demo-mail", "demo-orders", "demo-payments")
INSTANCES_EACH = 2
POLL_SECONDS = 0.2
# Long enough for a heartbeat of each.
QUIET_SECONDS = 0.5 * TTL_SECONDS

STARTED_WITHIN_SECONDS = 15.0
DEREGISTERED_WITHIN_SECONDS = 3.0
# The registry's promise: not before the TTL has passed since the last heartbeat, and off by TTL + 10 % + 5 s. The last
# heartbeat was up to a third of a TTL, give or take a tenth, before the kill.
EXPIRED_AFTER_SECONDS = TTL_SECONDS - 1.1 * TTL_SECONDS / 3
EXPIRED_WITHIN_SECONDS = 1.1 * TTL_SECONDS + 5


class UnexpectedError(Exception):
    """The registry did not do what the demo is there to show."""


class Story:
    """The six processes, and the list as the registry tells it."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.token = fetch_token(registry.issuer_url, registry.secret, "demo-caller", ["registry-readers"])
        self.began_at = time.monotonic()
        self.run = secrets.token_hex(2)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.listed: dict[str, str] = {}
        self.expected: set[str] = set()

    def tell(self) -> None:
        """From the first registration to the last deregistration. Raises UnexpectedError, NoAnswerError."""
        self.start_all()
        self.wait("all six registered", lambda: set(self.listed) == self.expected, STARTED_WITHIN_SECONDS)
        self.call_all()
        self.stay_the_same(QUIET_SECONDS)
        self.end_one("demo-payments", signal.SIGTERM)
        self.wait("it deregistered itself", self.as_expected, DEREGISTERED_WITHIN_SECONDS)
        self.call_all()
        killed = self.end_one("demo-orders", signal.SIGKILL)
        self.call_all(unanswered={killed})
        took = self.wait("nobody has heard of it for its TTL: expired", self.as_expected, EXPIRED_WITHIN_SECONDS)
        require(took >= EXPIRED_AFTER_SECONDS, f"{killed} was taken off too early, after {took:.1f} s")
        require(self.state_of(killed) == "expired", f"{killed} is not told as expired")
        self.call_all()
        self.end_all()
        self.wait("all deregistered, the list is empty", lambda: not self.listed, DEREGISTERED_WITHIN_SECONDS)

    def start_all(self) -> None:
        self.say(f"six processes start, with a TTL of {TTL_SECONDS} s and a token each")
        for service in SERVICES:
            for number in range(1, INSTANCES_EACH + 1):
                self.launch(service, f"{service.removeprefix('demo-')}-{self.run}-{number}")

    def launch(self, service: str, instance_id: str) -> None:
        variables = {
            **os.environ,
            "DEMO_REGISTRY": self.registry.url,
            "DEMO_ISSUER": self.registry.issuer_url,
            "DEMO_SECRET": self.registry.secret,
        }
        command = [sys.executable, "-m", "registry_project.devstack.demo.service", service, instance_id]
        self.processes[instance_id] = processes.spawn(command, variables=variables)
        self.expected.add(instance_id)

    def end_one(self, service: str, how: signal.Signals) -> str:
        chosen = sorted(name for name in self.expected if name.startswith(service.removeprefix("demo-")))[-1]
        self.say(f"{how.name} to {chosen}")
        self.processes[chosen].send_signal(how)
        self.processes[chosen].wait()
        self.expected.discard(chosen)
        return chosen

    def end_all(self) -> None:
        """Ask all to end, and end those that do not."""
        self.say("SIGTERM to all that are left")
        self.expected.clear()
        for process in self.processes.values():
            process.terminate()
        self.clean_up()

    def clean_up(self) -> None:
        for process in self.processes.values():
            processes.stop(process, signal.SIGTERM, patience_seconds=5)

    def wait(self, what: str, seen: Callable[[], bool], within_seconds: float) -> float:
        """Watch the list until `seen`, and return the seconds it took. Raises UnexpectedError when that is too long."""
        began_at = time.monotonic()
        while True:
            self.look()
            took = time.monotonic() - began_at
            if seen():
                self.say(f"  {what} ({took:.1f} s)")
                return took
            require(took < within_seconds, f"not seen within {within_seconds:g} s: {what}")
            time.sleep(POLL_SECONDS)

    def stay_the_same(self, seconds: float) -> None:
        began_at = time.monotonic()
        self.wait(
            "all beat, nothing changes", lambda: time.monotonic() - began_at > seconds, seconds + POLL_SECONDS * 5
        )

    def as_expected(self) -> bool:
        return set(self.listed) == self.expected

    def look(self) -> None:
        """Read the list and show it when it has changed. Raises UnexpectedError when one is missing that lives."""
        before, self.listed = self.listed, self.discovered()
        for gone in sorted(before.keys() - self.listed.keys()):
            self.say(f"  - {gone}")
        for new in sorted(self.listed.keys() - before.keys()):
            self.say(f"  + {new}  {self.listed[new]}")
        lost = before.keys() & self.expected - self.listed.keys()
        require(not lost, f"taken off the list though alive: {', '.join(sorted(lost))}")

    def discovered(self) -> dict[str, str]:
        """The address of each instance of this run, as discovery gives them to anybody."""
        found: dict[str, str] = {}
        for service in SERVICES:
            status, answer = call("GET", f"{self.registry.url}/registry/services/{service}", self.token)
            if status == 404:
                continue
            require(status == 200, f"discovery answered {status}: {answer}")
            found |= {
                item["instance_id"]: item["url"] for item in answer["instances"] if self.ours(item["instance_id"])
            }
        return found

    def ours(self, instance_id: str) -> bool:
        """Not those of another demo, nor those that an earlier one has left to expire."""
        return instance_id in self.processes

    def call_all(self, unanswered: set[str] | None = None) -> None:
        """Call whoever is listed, as a caller would."""
        silent = {name for name, url in self.listed.items() if not answers(name, url)}
        self.say(f"  called {len(self.listed)}, answered {len(self.listed) - len(silent)}")
        require(silent == (unanswered or set()), f"unexpected: no answer from {', '.join(sorted(silent)) or 'nobody'}")

    def state_of(self, instance_id: str) -> str:
        service = f"demo-{instance_id.split('-', maxsplit=1)[0]}"
        query = "state=expired&status=all"
        _, answer = call("GET", f"{self.registry.url}/registry/services/{service}?{query}", self.token)
        return next((item["state"] for item in answer["instances"] if item["instance_id"] == instance_id), "unknown")

    def say(self, sentence: str) -> None:
        print(f"{time.strftime('%H:%M:%S')}  {time.monotonic() - self.began_at:5.1f} s  {sentence}", flush=True)


def answers(instance_id: str, url: str) -> bool:
    try:
        status, answer = call("GET", f"{url}/")
    except NoAnswerError:
        return False
    return status == 200 and answer == {"instance_id": instance_id}


def require(fact: bool, otherwise: str) -> None:
    if not fact:
        raise UnexpectedError(otherwise)
