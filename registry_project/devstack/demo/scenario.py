"""The scenario of the demo: its steps, and the list that each has to lead to."""

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable

from registry_project.devstack import processes
from registry_project.devstack.demo.http_json import NoAnswerError, call, fetch_token
from registry_project.devstack.demo.registry import Registry
from registry_project.devstack.demo.service import TTL_SECONDS

SERVICES = ("demo-mail", "demo-orders", "demo-payments")
INSTANCES_EACH = 2
POLL_SECONDS = 0.2
# Each instance sends a heartbeat in this time.
QUIET_SECONDS = 0.5 * TTL_SECONDS

STARTED_WITHIN_SECONDS = 15.0
# Sooner than an instance could expire instead. A loaded machine needs more than a moment.
DEREGISTERED_WITHIN_SECONDS = 6.0
STOPPED_WITHIN_SECONDS = 20.0
# An instance expires after its TTL without a heartbeat and by TTL + 10 % + 5 s. The last heartbeat was up to a third of
# the TTL, plus a tenth, before the kill.
EXPIRED_AFTER_SECONDS = TTL_SECONDS - 1.1 * TTL_SECONDS / 3
EXPIRED_WITHIN_SECONDS = 1.1 * TTL_SECONDS + 5


class UnexpectedError(Exception):
    """The registry did not do what the scenario expects."""


class Scenario:
    """Six processes of three services, and the instances that the registry lists."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.token = fetch_token(registry.issuer_url, registry.secret, "demo-caller", ["registry-readers"])
        self.began_at = time.monotonic()
        self.run_id = secrets.token_hex(2)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.listed: dict[str, str] = {}
        self.expected: set[str] = set()

    def run(self) -> None:
        """Run from the first registration to the last deregistration.

        Raises UnexpectedError, NoAnswerError.
        """
        self.start_all()
        self.wait("all six are registered", lambda: set(self.listed) == self.expected, STARTED_WITHIN_SECONDS)
        self.call_all()
        self.expect_no_change(QUIET_SECONDS)
        self.end("demo-payments", signal.SIGTERM)
        self.wait("it has deregistered", self.as_expected, DEREGISTERED_WITHIN_SECONDS)
        self.call_all()
        killed = self.end("demo-orders", signal.SIGKILL)
        self.call_all(unanswered={killed})
        took = self.wait("it sent no heartbeat for its TTL and expired", self.as_expected, EXPIRED_WITHIN_SECONDS)
        require(took >= EXPIRED_AFTER_SECONDS, f"{killed} expired too early, after {took:.1f} s")
        require(self.state_of(killed) == "expired", f"{killed} is not reported as expired")
        self.call_all()
        self.end_all()
        self.wait("all have deregistered and the list is empty", lambda: not self.listed, DEREGISTERED_WITHIN_SECONDS)

    def start_all(self) -> None:
        self.report(f"starting six processes, each with its own token and a TTL of {TTL_SECONDS} s")
        for service in SERVICES:
            for number in range(1, INSTANCES_EACH + 1):
                self.launch(service, f"{service.removeprefix('demo-')}-{self.run_id}-{number}")

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

    def end(self, service: str, how: signal.Signals) -> str:
        chosen = sorted(name for name in self.expected if name.startswith(service.removeprefix("demo-")))[-1]
        self.report(f"{how.name} to {chosen}")
        self.processes[chosen].send_signal(how)
        self.processes[chosen].wait()
        self.expected.discard(chosen)
        return chosen

    def end_all(self) -> None:
        """Send SIGTERM to all processes, and kill those that do not stop."""
        self.report("SIGTERM to all others")
        self.expected.clear()
        for process in self.processes.values():
            process.terminate()
        self.clean_up()

    def clean_up(self) -> None:
        for process in self.processes.values():
            processes.stop(process, signal.SIGTERM, timeout_seconds=STOPPED_WITHIN_SECONDS)

    def wait(self, what: str, seen: Callable[[], bool], within_seconds: float) -> float:
        """Read the list until `seen` is true, and return the seconds that took.

        Raises UnexpectedError after `within_seconds`.
        """
        began_at = time.monotonic()
        while True:
            self.read_list()
            took = time.monotonic() - began_at
            if seen():
                self.report(f"  {what} ({took:.1f} s)")
                return took
            require(took < within_seconds, f"not within {within_seconds:g} s: {what}")
            time.sleep(POLL_SECONDS)

    def expect_no_change(self, seconds: float) -> None:
        began_at = time.monotonic()
        self.wait(
            "all send heartbeats and nothing changes",
            lambda: time.monotonic() - began_at > seconds,
            seconds + POLL_SECONDS * 5,
        )

    def as_expected(self) -> bool:
        return set(self.listed) == self.expected

    def read_list(self) -> None:
        """Read the list and print its changes.

        Raises UnexpectedError when a running instance is missing.
        """
        before, self.listed = self.listed, self.discovered()
        for removed in sorted(before.keys() - self.listed.keys()):
            self.report(f"  - {removed}")
        for added in sorted(self.listed.keys() - before.keys()):
            self.report(f"  + {added}  {self.listed[added]}")
        lost = before.keys() & self.expected - self.listed.keys()
        require(not lost, f"no longer listed, but running: {', '.join(sorted(lost))}")

    def discovered(self) -> dict[str, str]:
        """Return the address of each instance of this run, by discovery."""
        found: dict[str, str] = {}
        for service in SERVICES:
            status, answer = call("GET", f"{self.registry.url}/registry/services/{service}", self.token)
            if status == 404:
                continue
            require(status == 200, f"discovery answered {status}: {answer}")
            found |= {
                item["instance_id"]: item["url"] for item in answer["instances"] if self.is_ours(item["instance_id"])
            }
        return found

    def is_ours(self, instance_id: str) -> bool:
        """Return whether this run has started the instance, and not an earlier demo."""
        return instance_id in self.processes

    def call_all(self, unanswered: set[str] | None = None) -> None:
        """Send a request to each listed instance, as a client does."""
        silent = {name for name, url in self.listed.items() if not answers(name, url)}
        self.report(f"  called {len(self.listed)} instances, {len(self.listed) - len(silent)} answered")
        require(
            silent == (unanswered or set()), f"unexpected: no answer from {', '.join(sorted(silent)) or 'no instance'}"
        )

    def state_of(self, instance_id: str) -> str:
        service = f"demo-{instance_id.split('-', maxsplit=1)[0]}"
        query = "state=expired&status=all"
        _, answer = call("GET", f"{self.registry.url}/registry/services/{service}?{query}", self.token)
        return next((item["state"] for item in answer["instances"] if item["instance_id"] == instance_id), "unknown")

    def report(self, sentence: str) -> None:
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
