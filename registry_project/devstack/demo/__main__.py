"""`python -m registry_project.devstack.demo`, which is `make demo`. Exit codes: 0 all seen, 1 not so, 2 no registry."""

import signal
import sys

from registry_project.devstack.demo.http_json import NoAnswerError
from registry_project.devstack.demo.running import registry
from registry_project.devstack.demo.story import Story, UnexpectedError
from registry_project.devstack.exceptions import EmbeddedError


def main() -> int:
    try:
        with registry() as found:
            print(f"The registry is {found.url}.", flush=True)
            return tell(Story(found))
    except EmbeddedError as error:
        print(error, file=sys.stderr)
        return 2


def tell(story: Story) -> int:
    try:
        story.tell()
    except (UnexpectedError, NoAnswerError) as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 1
    finally:
        story.clean_up()
    print("Everything was as it should be.")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped on this way out too
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
