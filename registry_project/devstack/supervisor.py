"""Run the registry for development: start, restart and stop its components."""

import fcntl
import http.client
import json
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import TextIO

from django.core.exceptions import ImproperlyConfigured

from registry_project import env
from registry_project.devstack import DevstackError, environment_file, plan
from registry_project.devstack.banner import banner
from registry_project.devstack.components import FIRST_PAUSE_SECONDS, Command, Component, Supervised, report

TICK_SECONDS = 0.1
# A component that dies this often before the registry is ready has a fault that restarts do not cure.
DEATHS_BEFORE_READY = 5
REPORT_NOT_READY_SECONDS = 15
SAME_SIGNAL_SECONDS = 0.5


class Stopped(Exception):
    """A signal has asked the supervisor to stop."""


class Supervisor:
    """Runs the components of a plan until a signal stops it."""

    def __init__(self, planned: plan.Plan, first_pause_seconds: float = FIRST_PAUSE_SECONDS) -> None:
        self.plan = planned
        self.first_pause_seconds = first_pause_seconds
        self.migrate = Command("migrate", ["manage.py", "migrate", "--verbosity=0"], timeout_seconds=5)
        self.supervised: list[Supervised] = []
        self.signalled_at: float | None = None

    def run(self) -> None:
        """Return after a signal, when nothing runs any more.

        Raises DevstackError when the start fails.
        """
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self.on_signal)
        try:
            self.start()
            print(banner(self.plan), flush=True)
            while True:
                self.check()
        except Stopped:
            report("stopping ...")
        finally:
            self.stop()

    def start(self) -> None:
        """Start the components in the order of their needs, and wait until all is ready."""
        self.supervise(self.plan.issuer)
        if self.plan.postgres:
            report("starting PostgreSQL ...")
            self.plan.postgres.start()
            self.supervise(self.plan.postgres, already_launched=True)
        environment_file.write()
        self.apply_migrations()
        for component in (self.plan.web, *self.plan.workers):
            self.supervise(component)
        self.wait_until_ready()

    def supervise(self, component: Component | None, *, already_launched: bool = False) -> None:
        if component:
            supervised = Supervised(component, self.first_pause_seconds)
            self.supervised.append(supervised)
            supervised.restart_at = None if already_launched else 0.0
            supervised.check()

    def apply_migrations(self) -> None:
        self.migrate.launch()
        while self.migrate.is_alive():
            self.check()
        if self.migrate.process and self.migrate.process.returncode:
            raise DevstackError("The migrations failed; the reason is printed above.")

    def wait_until_ready(self) -> None:
        began_at = reported_at = time.monotonic()
        while (reason := not_ready_reason(self.plan.url)) is not None:
            self.check()
            self.require_few_deaths()
            if time.monotonic() - reported_at > REPORT_NOT_READY_SECONDS:
                reported_at = time.monotonic()
                report(f"not ready after {reported_at - began_at:.0f} s: {reason}")

    def require_few_deaths(self) -> None:
        for each in self.supervised:
            if each.deaths >= DEATHS_BEFORE_READY:
                raise DevstackError(
                    f"{each.component.name} exited {each.deaths} times before the registry was ready; "
                    "the reason is printed above."
                )

    def check(self) -> None:
        """Check every component once, and wait a moment. Raises Stopped after a signal."""
        for each in self.supervised:
            each.check()
        time.sleep(TICK_SECONDS)
        if self.signalled_at is not None:
            raise Stopped

    def stop(self) -> None:
        """Remove the environment file, then stop each component before what it needs."""
        environment_file.remove()
        for component in self.in_stopping_order():
            component.stop()

    def in_stopping_order(self) -> list[Component]:
        components = [self.migrate, self.plan.web, *self.plan.workers, self.plan.issuer, self.plan.postgres]
        return [component for component in components if component]

    def on_signal(self, _number: int, _frame: FrameType | None) -> None:
        """Stop gracefully at the first signal, and immediately at the second.

        Ctrl-C sends the signal to the whole process group, and `make` then passes it on: a signal within
        SAME_SIGNAL_SECONDS of the first is the same one.
        """
        now = time.monotonic()
        if self.signalled_at is None:
            self.signalled_at = now
        elif now - self.signalled_at > SAME_SIGNAL_SECONDS:
            for component in self.in_stopping_order():
                component.stop_immediately()


def not_ready_reason(url: str) -> str | None:
    """Return why the registry is not ready, by its `/readyz`; None when it is."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=2)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        text = response.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return f"the web server does not answer ({error})"
    finally:
        connection.close()
    return None if response.status == http.HTTPStatus.OK else failed_checks(text)


def failed_checks(text: str) -> str:
    try:
        return ", ".join(f"{name}: {found}" for name, found in json.loads(text)["checks"].items())
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"/readyz answers {text[:200]!r}"


def lock_data_directory(directory: Path) -> TextIO:
    """Create the data directory and lock it for as long as the returned file is open.

    The kernel releases the lock when the process ends for any reason; the process id in the file is for people.
    Raises DevstackError when another process has the lock.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DevstackError(f"REGISTRY_DATA_DIR must be a directory that can be created: {error.strerror}.") from error
    file = open(os.open(directory / "run.pid", os.O_RDWR | os.O_CREAT, 0o644), "r+")  # noqa: SIM115 - stays open
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise DevstackError(
            f"A registry (process {file.read().strip() or 'unknown'}) is running with the data in {directory}: "
            "stop it first, or set REGISTRY_DATA_DIR and REGISTRY_PORT for a second one."
        ) from None
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


def main() -> int:
    """Run the registry.

    Exit codes: 0 stopped, 1 the start failed, 2 something has to be changed first.
    """
    directory = env.data_directory()
    try:
        with lock_data_directory(directory):
            return run(plan.make_plan(directory))
    except (ImproperlyConfigured, DevstackError, OSError) as error:
        return fail(error, 2)


def run(planned: plan.Plan) -> int:
    try:
        Supervisor(planned).run()
    except DevstackError as error:
        return fail(error, 1)
    return 0


def fail(error: Exception, code: int) -> int:
    print(f"The registry cannot start: {error}", file=sys.stderr, flush=True)
    return code
