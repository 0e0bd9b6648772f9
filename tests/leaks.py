"""Looks through the output of the whole run for tokens and metadata, and fails the run that shows any.

Loaded by `-p tests.leaks`. Output is what pytest captured of each test in each of its processes, and what the processes
that tests started have written into files: `output`, and the logs of servers. Tokens are told by their look, and by
their parts, which `note_token` keeps; metadata by a value that all shared factories give.

Of a worker that crashes, what it captured in the phase of the test in which it did is lost with it, and nobody looks
through that. Such a run fails by itself.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

CANARY = "recognisable-metadata-value"
# A token's first two parts are JSON in base64; each by itself, in whatever it is wrapped.
LOOKS_LIKE_A_TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]{12,}")
LONG_WORD = re.compile(r"[A-Za-z0-9_-]{40,}")
ESCAPED = re.compile(r"%[0-9A-Fa-f]{2}")
OUTPUT_FILES = ("output", "log", "*.log", "stdout", "stderr")
NOTES = "tokens-noted-by-{}"


def directory() -> Path | None:
    """Where the processes of this run leave their notes for one another."""
    place = os.environ.get("REGISTRY_TESTS_DIRECTORY")
    return Path(place) if place else None


def note_token(token: str) -> str:
    """Keep the parts of a token that a test has made, and return it."""
    place = directory()
    if place:
        with (place / NOTES.format(os.getpid())).open("a") as notes:
            notes.writelines(f"{part}\n" for part in token.split("."))
    return token


def noted() -> set[str]:
    place = directory()
    notes = place.glob(NOTES.format("*")) if place else ()
    return {part for each in notes for part in each.read_text().split()}


def leaks(text: str, token_parts: set[str]) -> Iterator[str]:
    """What `text` shows that it must not, without repeating it."""
    if CANARY in text:
        yield "the value of metadata"
    if LOOKS_LIKE_A_TOKEN.search(text):
        yield "what looks like a token"
    if not token_parts.isdisjoint(LONG_WORD.findall(ESCAPED.sub(" ", text))):
        yield "a part of a token"


class Output:
    """What this run has said: `told` by the tests' reports, and `written` into files under `places`."""

    def __init__(self, places: list[Path]) -> None:
        self.places = places
        self.told: dict[str, list[str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # Each report repeats what was captured in the phases before, but for that of a crash, which has nothing. What
        # pytest itself renders of log records is left out: it shows errors as they were raised. What the registry makes
        # of them is in stderr.
        if report.sections:
            self.told[report.nodeid] = [text for title, text in report.sections if " log " not in title]

    def written(self) -> Iterator[tuple[str, str]]:
        for place in self.places:
            for pattern in OUTPUT_FILES:
                for path in place.rglob(pattern):
                    if path.is_file():
                        yield str(path), path.read_text(errors="replace")

    def findings(self) -> list[str]:
        parts = noted()
        texts = [(name, text) for name, told in self.told.items() for text in told]
        return sorted({f"{name}: {leak}" for name, text in (*texts, *self.written()) for leak in leaks(text, parts)})

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        factory = session.config._tmp_path_factory  # type: ignore[attr-defined]
        if factory._basetemp is not None:
            self.places.append(factory._basetemp)
        self.found = self.findings()
        if self.found:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.found:
            terminalreporter.section("tokens or metadata in the output", red=True)
            for finding in self.found:
                terminalreporter.write_line(finding, red=True)


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        place = directory()
        config.pluginmanager.register(Output([place] if place else []), "output-without-secrets")
