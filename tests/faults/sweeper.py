"""A process that sweeps: `python -m tests.faults.sweeper 0.1` every 0.1 s; without a number, once for each line."""

import sys
import time

import django

django.setup()

from service_registry.expiry.sweep import sweep  # noqa: E402 - what it is made of needs Django's registry of models


def main() -> None:
    if len(sys.argv) > 1:
        while True:
            sweep()
            time.sleep(float(sys.argv[1]))
    for _line in sys.stdin:
        print("swept" if sweep().finished else "another does", flush=True)


main()
