"""That a token or metadata in the output of a run fails the run."""

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
@pytest.mark.parametrize("wrapped", ["{}", 'said "{}"\n', "a\n{}.\nb", "Bearer%20{}&x=1"])
def test_it_is_found_wherever_it_stands(text: str, wrapped: str) -> None:
    assert list(leaks(wrapped.format(text), {HEADER, PAYLOAD, SIGNATURE}))


@pytest.mark.parametrize("text", ["", "Bearer [token]", "f" * 64, '{"event":"register","instance_id":"web-1"}', "eyJ"])
def test_nothing_is_found_where_nothing_is(text: str) -> None:
    assert not list(leaks(text, {HEADER, PAYLOAD, SIGNATURE}))


TESTS = """
import subprocess, sys

def test_says_nothing(): print("all is well")
def test_prints(): print({said!r})
def test_writes_to_stderr(): print({said!r}, file=sys.stderr)
def test_starts_a_process(tmp_path):
    with (tmp_path / "output").open("w") as output:
        subprocess.run([sys.executable, "-c", "print({said!r})"], stdout=output)
"""


@pytest.fixture
def tests() -> Iterator[Path]:
    """Not among the files of this run, which is looked through as well."""
    with tempfile.TemporaryDirectory() as place:
        yield Path(place)


def run(tests: Path, said: str, *more: str, source: str = TESTS) -> subprocess.CompletedProcess[str]:
    (tests / "test_output.py").write_text(source.format(said=said))
    plugins = ("-p", "tests.leaks", "-p", "no:django", "-p", "no:cacheprovider", "-c", os.devnull)
    command = [sys.executable, "-m", "pytest", "-q", *plugins, f"--rootdir={tests}", f"--basetemp={tests}/base", *more]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    line = [*command, str(tests / "test_output.py")]
    return subprocess.run(line, env=environment, cwd=tests, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("processes", ["0", "2"])
@pytest.mark.parametrize("said", [TOKEN, CANARY], ids=["token", "metadata"])
def test_a_run_that_shows_it_fails_and_says_where(tests: Path, said: str, processes: str) -> None:
    done = run(tests, said, "-n", processes)
    assert done.returncode == 1, done.stdout
    assert "4 passed" in done.stdout
    for name in ("test_prints", "test_writes_to_stderr"):
        assert f"test_output.py::{name}: " in done.stdout
    assert "/output: " in done.stdout
    assert "test_says_nothing: " not in done.stdout
    assert said not in done.stdout


CRASHES = """
import os, pytest

@pytest.fixture
def crashes_at_its_end():
    yield
    os._exit(3)

def test_prints(crashes_at_its_end): print({said!r})
"""


def test_what_was_told_before_a_worker_crashed_is_looked_through(tests: Path) -> None:
    done = run(tests, TOKEN, "-n", "1", "--max-worker-restart=0", source=CRASHES)
    assert "crashed while running" in done.stdout
    assert "test_output.py::test_prints: what looks like a token" in done.stdout
    assert TOKEN not in done.stdout.partition("tokens or metadata in the output")[2]


def test_a_run_that_shows_nothing_passes(tests: Path) -> None:
    done = run(tests, "Bearer [token]")
    assert (done.returncode, "tokens or metadata" in done.stdout) == (0, False), done.stdout
