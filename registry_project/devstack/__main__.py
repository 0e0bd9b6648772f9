"""Run `make run`: python -m registry_project.devstack."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - the module can be run without the Makefile
    sys.exit("The registry needs Python 3.11 or newer; this is {}.{}.".format(*sys.version_info))

from registry_project.devstack.supervisor import main

if __name__ == "__main__":
    sys.exit(main())
