"""Run `make demo`: python -m registry_project.devstack.demo.

Exit codes: 0 as expected, 1 not as expected, 2 no registry.
"""

import signal
import sys

from registry_project.devstack import DevstackError
from registry_project.devstack.demo.http_json import NoAnswerError
from registry_project.devstack.demo.registry import find_or_start
from registry_project.devstack.demo.scenario import Scenario, UnexpectedError


def main() -> int:
    try:
        with find_or_start() as registry:
            print(f"Using the registry at {registry.url}.", flush=True)
            return run(Scenario(registry))
    except DevstackError as error:
        print(error, file=sys.stderr)
        return 2


def run(scenario: Scenario) -> int:
    try:
        scenario.run()
    except (UnexpectedError, NoAnswerError) as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 1
    finally:
        scenario.clean_up()
    print("The registry did everything that was expected.")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # runs the `finally` blocks, which stop the processes
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
