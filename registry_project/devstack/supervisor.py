"""`make run`: start everything in order, look after it, stop everything in the opposite order."""

import http.client
import json
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from django.core.exceptions import ImproperlyConfigured

from registry_project.devstack import environment_file, plan, run_lock
from registry_project.devstack.announcement import address, announcement
from registry_project.devstack.exceptions import EmbeddedError
from registry_project.devstack.parts import SHORTEST_PAUSE_SECONDS, Command, Part, Tended, say

TICK_SECONDS = 0.1
# A part that never gets further than this many deaths has something that starting it again does not mend.
DEATHS_BEFORE_READY = 5
SAY_WHY_NOT_READY_SECONDS = 15
SAME_SIGNAL_SECONDS = 0.5


class Stopped(Exception):
    """Somebody asked us to end."""


class Supervisor:
    """Runs the parts of a plan until it is told to stop."""

    def __init__(self, planned: plan.Plan, shortest_pause_seconds: float = SHORTEST_PAUSE_SECONDS) -> None:
        self.plan = planned
        self.shortest_pause_seconds = shortest_pause_seconds
        self.migrate = Command("migrate", ["manage.py", "migrate", "--verbosity=0"], patience_seconds=5)
        self.tended: list[Tended] = []
        self.signalled_at: float | None = None

    def run(self) -> None:
        """Return after a signal, with nothing left running. Raises EmbeddedError when the start does not succeed."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self.on_signal)
        try:
            self.start()
            print(announcement(own_tokens=self.plan.issuer is not None), flush=True)
            while True:
                self.tend()
        except Stopped:
            say("stopping ...")
        finally:
            self.stop()

    def start(self) -> None:
        """Bring everything up, each part once what it needs is there, and wait until the registry is ready."""
        self.look_after(self.plan.issuer)
        if self.plan.postgres:
            say("starting PostgreSQL ...")
            self.plan.postgres.start()
            self.look_after(self.plan.postgres, already_launched=True)
        environment_file.write(plan.shared_environment())
        self.apply_migrations()
        for part in (self.plan.web, *self.plan.workers):
            self.look_after(part)
        self.wait_until_ready()

    def look_after(self, part: Part | None, *, already_launched: bool = False) -> None:
        if part:
            tended = Tended(part, self.shortest_pause_seconds)
            self.tended.append(tended)
            tended.due_at = None if already_launched else 0.0
            tended.tend()

    def apply_migrations(self) -> None:
        self.migrate.launch()
        while self.migrate.alive():
            self.tend()
        if self.migrate.process and self.migrate.process.returncode:
            raise EmbeddedError("The migrations failed, as said above.")

    def wait_until_ready(self) -> None:
        began_at = said_at = time.monotonic()
        while (reason := why_not_ready()) is not None:
            self.tend()
            self.give_up_on_the_hopeless()
            if time.monotonic() - said_at > SAY_WHY_NOT_READY_SECONDS:
                said_at = time.monotonic()
                say(f"not ready after {said_at - began_at:.0f} s: {reason}")

    def give_up_on_the_hopeless(self) -> None:
        for tended in self.tended:
            if tended.deaths >= DEATHS_BEFORE_READY:
                name = tended.part.name
                raise EmbeddedError(f"{name} ended {tended.deaths} times before the registry was ready; see above why.")

    def tend(self) -> None:
        """Look after every part once, and wait a moment. Raises Stopped after a signal."""
        for tended in self.tended:
            tended.tend()
        time.sleep(TICK_SECONDS)
        if self.signalled_at is not None:
            raise Stopped

    def stop(self) -> None:
        """Stop who serves first and what it needs last; the file goes first, so that nobody new comes."""
        environment_file.remove()
        for part in self.in_stopping_order():
            part.stop()

    def in_stopping_order(self) -> list[Part]:
        parts = [self.migrate, self.plan.web, *self.plan.workers, self.plan.issuer, self.plan.postgres]
        return [part for part in parts if part]

    def on_signal(self, _number: int, _frame: FrameType | None) -> None:
        """The first signal asks; a second one ends every process without asking.

        One that comes at once is the same: `make` passes on what the whole process group has got already.
        """
        now = time.monotonic()
        if self.signalled_at is None:
            self.signalled_at = now
        elif now - self.signalled_at > SAME_SIGNAL_SECONDS:
            for part in self.in_stopping_order():
                part.hurry()


def why_not_ready() -> str | None:
    """What `/readyz` has against being ready; None when it is."""
    parts = address().removeprefix("http://")
    connection = http.client.HTTPConnection(parts, timeout=2)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        text = answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return f"the web server does not answer ({error})"
    finally:
        connection.close()
    return None if answer.status == http.HTTPStatus.OK else failed_checks(text)


def failed_checks(text: str) -> str:
    try:
        return ", ".join(f"{name}: {found}" for name, found in json.loads(text)["checks"].items())
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"/readyz says {text[:200]!r}"


def main() -> int:
    """Run the registry, and return the exit code: 0 stopped, 1 the start failed, 2 something must be changed first."""
    directory = environment_file.data_directory()
    try:
        provide(directory)
        with run_lock.take(directory):
            return supervise(plan.make(directory))
    except (ImproperlyConfigured, EmbeddedError, OSError) as error:
        return fail(error, 2)


def provide(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EmbeddedError(f"REGISTRY_DATA_DIR is no directory that can be made: {error.strerror}.") from error


def supervise(planned: plan.Plan) -> int:
    try:
        Supervisor(planned).run()
    except EmbeddedError as error:
        return fail(error, 1)
    return 0


def fail(error: Exception, code: int) -> int:
    print(f"The registry cannot start: {error}", file=sys.stderr, flush=True)
    return code
