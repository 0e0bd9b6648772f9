"""A token or metadata in the output of a test run fails the run."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client import token
from tests.commands import ROOT
from tests.leaks import CANARY, leaks

TOKEN = token("team")
HEADER, PAYLOAD, SIGNATURE = TOKEN.split(".")


@pytest.mark.parametrize("text", [TOKEN, HEADER, PAYLOAD, SIGNATURE, CANARY])
@pytest.mark.parametrize("wrapped", ["{}", 'text "{}"\n', "a\n{}.\nb", "Bearer%20{}&x=1"])
def test_leak_is_found_in_any_context(text: str, wrapped: str) -> None:
    assert list(leaks(wrapped.format(text), {HEADER, PAYLOAD, SIGNATURE}))


@pytest.mark.parametrize("text", ["", "Bearer [token]", "f" * 64, '{"event":"register","instance_id":"web-1"}', "eyJ"])
def test_text_without_a_leak_passes(text: str) -> None:
    assert not list(leaks(text, {HEADER, PAYLOAD, SIGNATURE}))


TESTS = """
import subprocess, sys

def test_prints_no_secret(): print("all is well")
def test_prints(): print({text!r})
def test_writes_to_stderr(): print({text!r}, file=sys.stderr)
def test_starts_a_process(tmp_path):
    with (tmp_path / "output").open("w") as output:
        subprocess.run([sys.executable, "-c", "print({text!r})"], stdout=output)
"""


@pytest.fixture
def tests() -> Iterator[Path]:
    """A directory outside of this run, whose own output is searched, too."""
    with tempfile.TemporaryDirectory() as place:
        yield Path(place)


def run(tests: Path, text: str, *more: str, source: str = TESTS) -> subprocess.CompletedProcess[str]:
    (tests / "test_output.py").write_text(source.format(text=text))
    plugins = ("-p", "tests.leaks", "-p", "no:django", "-p", "no:cacheprovider", "-c", os.devnull)
    command = [sys.executable, "-m", "pytest", "-q", *plugins, f"--rootdir={tests}", f"--basetemp={tests}/base", *more]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    line = [*command, str(tests / "test_output.py")]
    return subprocess.run(line, env=environment, cwd=tests, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("processes", ["0", "2"])
@pytest.mark.parametrize("text", [TOKEN, CANARY], ids=["token", "metadata"])
def test_run_with_a_leak_fails_and_names_the_place(tests: Path, text: str, processes: str) -> None:
    done = run(tests, text, "-n", processes)
    assert done.returncode == 1, done.stdout
    assert "4 passed" in done.stdout
    for name in ("test_prints", "test_writes_to_stderr"):
        assert f"test_output.py::{name}: " in done.stdout
    assert "/output: " in done.stdout
    assert "test_prints_no_secret: " not in done.stdout
    assert text not in done.stdout


CRASHES = """
import os, pytest

@pytest.fixture
def crash_at_teardown():
    yield
    os._exit(3)

def test_prints(crash_at_teardown): print({text!r})
"""


def test_output_before_a_crash_of_a_worker_is_searched(tests: Path) -> None:
    done = run(tests, TOKEN, "-n", "1", "--max-worker-restart=0", source=CRASHES)
    assert "crashed while running" in done.stdout
    assert "test_output.py::test_prints: what looks like a token" in done.stdout
    assert TOKEN not in done.stdout.partition("tokens or metadata in the output")[2]


def test_run_without_a_leak_passes(tests: Path) -> None:
    done = run(tests, "Bearer [token]")
    assert (done.returncode, "tokens or metadata" in done.stdout) == (0, False), done.stdout
