"""`manage.py check_health` with settings that it cannot use."""

import subprocess
from pathlib import Path

import pytest

from tests.commands import ROOT, command_line, environment


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_checker_without_usable_authorities_ends_with_one_sentence(tmp_path: Path, content: str | None) -> None:
    """Otherwise each check over TLS would fail, and say that the targets do."""
    file = tmp_path / "authorities.pem"
    if content is not None:
        file.write_text(content)
    variables = environment() | {"REGISTRY_HEALTH_CA_FILE": str(file)}
    command = subprocess.run(
        command_line("check_health"), env=variables, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert command.returncode == 1
    assert command.stderr.startswith("CommandError: REGISTRY_HEALTH_CA_FILE has no usable certificates: ")
    assert command.stderr.count("\n") == 1
