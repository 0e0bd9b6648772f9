"""`make demo` sees what it is there to show, with a registry of its own, and leaves nothing behind."""

import os
import subprocess
import sys
from pathlib import Path

from tests.test_supervisor import CHECKOUT, OF_THE_SUITE, Registry


def test_the_demo_sees_what_it_is_there_to_show(tmp_path: Path) -> None:
    variables = {name: value for name, value in os.environ.items() if name not in OF_THE_SUITE}
    variables["REGISTRY_DATA_DIR"] = str(tmp_path / "data")
    command = [sys.executable, "-m", "registry_project.devstack.demo"]
    shown = subprocess.run(
        command, cwd=CHECKOUT, env=variables, capture_output=True, text=True, timeout=90, check=False
    )
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.splitlines()[-1] == "Everything was as it should be."
    assert Registry(tmp_path).left() == {}
