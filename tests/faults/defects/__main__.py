"""Run the suite against deliberate mistakes, each with the test that must fail: one by name, or all of them.

Exit code 0 when each was caught, by the assertion that is about it.
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
    found = done.returncode == 1 and any(said in done.stdout for said in defect.says.split(" or "))
    told = [line for line in done.stdout.splitlines() if line.startswith("E  ")]
    print(f"{name} ({defect.what}): {'caught' if found else 'NOT CAUGHT'}", *told[:3], sep="\n", flush=True)
    if not found:
        print(done.stdout[-3000:])
    return found


def main() -> int:
    results = [caught(name, DEFECTS[name]) for name in sys.argv[1:] or DEFECTS]
    return 0 if all(results) else 1


sys.exit(main())
