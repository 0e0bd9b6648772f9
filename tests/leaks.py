"""A pytest plugin (`-p tests.leaks`) that fails a run whose output contains a token or metadata.

It searches what pytest captured in all its processes, and the files that the started processes wrote: `output` and the
logs of servers. A token is recognized by its form and by its parts, which `note_token` records; metadata by a value
that all shared factories use.

The output that a worker captured in the phase of a test in which it crashed is lost and cannot be searched; such a run
fails anyway.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

CANARY = "recognisable-metadata-value"
# The first two parts of a token are JSON in base64.
LOOKS_LIKE_A_TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]{12,}")
LONG_WORD = re.compile(r"[A-Za-z0-9_-]{40,}")
ESCAPED = re.compile(r"%[0-9A-Fa-f]{2}")
OUTPUT_FILES = ("output", "log", "*.log", "stdout", "stderr")
NOTES = "tokens-noted-by-{}"


def directory() -> Path | None:
    """Return the directory that all processes of this run share."""
    place = os.environ.get("REGISTRY_TESTS_DIRECTORY")
    return Path(place) if place else None


def note_token(token: str) -> str:
    """Record the parts of a token that a test made, and return the token."""
    place = directory()
    if place:
        with (place / NOTES.format(os.getpid())).open("a") as notes:
            notes.writelines(f"{part}\n" for part in token.split("."))
    return token


def noted_parts() -> set[str]:
    place = directory()
    notes = place.glob(NOTES.format("*")) if place else ()
    return {part for each in notes for part in each.read_text().split()}


def leaks(text: str, token_parts: set[str]) -> Iterator[str]:
    """Yield a description of each leak in `text`, without the secret itself."""
    if CANARY in text:
        yield "the value of metadata"
    if LOOKS_LIKE_A_TOKEN.search(text):
        yield "what looks like a token"
    if not token_parts.isdisjoint(LONG_WORD.findall(ESCAPED.sub(" ", text))):
        yield "a part of a token"


class Output:
    """The output of this run: `captured` by pytest, and `written` into files under `places`."""

    def __init__(self, places: list[Path]) -> None:
        self.places = places
        self.captured: dict[str, list[str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # A report repeats the sections of the phases before; the report of a crash has none. Sections of log records
        # are left out: pytest renders them itself, with errors as they were raised. The registry's log is in stderr.
        if report.sections:
            self.captured[report.nodeid] = [text for title, text in report.sections if " log " not in title]

    def written(self) -> Iterator[tuple[str, str]]:
        for place in self.places:
            for pattern in OUTPUT_FILES:
                for path in place.rglob(pattern):
                    if path.is_file():
                        yield str(path), path.read_text(errors="replace")

    def findings(self) -> list[str]:
        parts = noted_parts()
        texts = [(name, text) for name, captured in self.captured.items() for text in captured]
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
