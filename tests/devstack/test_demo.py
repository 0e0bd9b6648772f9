"""`make demo` with a registry that it starts itself."""

import os
import subprocess
import sys
from pathlib import Path

from tests.devstack.test_supervisor import CHECKOUT, OF_THE_TEST_RUN, Registry


def test_demo_without_a_running_registry_starts_one_and_succeeds(tmp_path: Path) -> None:
    variables = {name: value for name, value in os.environ.items() if name not in OF_THE_TEST_RUN}
    variables["REGISTRY_DATA_DIR"] = str(tmp_path / "data")
    command = [sys.executable, "-m", "registry_project.devstack.demo"]
    shown = subprocess.run(
        command, cwd=CHECKOUT, env=variables, capture_output=True, text=True, timeout=90, check=False
    )
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.splitlines()[-1] == "The registry did everything that was expected."
    assert Registry(tmp_path).processes() == {}
