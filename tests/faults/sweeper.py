"""Sweeps in a process of its own: `python -m tests.faults.sweeper 0.1` all the time, without a number at each line."""

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
