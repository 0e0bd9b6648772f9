"""Run the fault tests with seeded defects, each with the test that must fail: those named, or all.

Exit code 0 when each one was caught by its assertion.
"""

import os
import subprocess
import sys

from tests.faults.defects import DEFECTS, Defect


def caught(name: str, defect: Defect) -> bool:
    command = [sys.executable, "-m", "pytest", "-n", "0", "-q", "-s", defect.caught_by]
    done = subprocess.run(
        command, env=os.environ | {"FAULTS_DEFECT": name}, capture_output=True, text=True, check=False
    )
    found = done.returncode == 1 and any(text in done.stdout for text in defect.output.split(" or "))
    errors = [line for line in done.stdout.splitlines() if line.startswith("E  ")]
    print(f"{name} ({defect.description}): {'caught' if found else 'NOT CAUGHT'}", *errors[:3], sep="\n", flush=True)
    if not found:
        print(done.stdout[-3000:])
    return found


def main() -> int:
    results = [caught(name, DEFECTS[name]) for name in sys.argv[1:] or DEFECTS]
    return 0 if all(results) else 1


sys.exit(main())
