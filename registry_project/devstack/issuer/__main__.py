"""Run the issuer alone: python -m registry_project.devstack.issuer --port N."""

import argparse
import sys

from django.core.exceptions import ImproperlyConfigured

from registry_project import env
from registry_project.devstack.issuer.server import Server


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m registry_project.devstack.issuer", description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="loopback port to listen on")
    arguments = parser.parse_args()
    if not env.flag("DEBUG"):
        raise ImproperlyConfigured("it accepts every login without a password, and runs with DEBUG=true only.")
    Server(arguments.port, env.data_directory(), env.text("OIDC_AUDIENCE", "service-registry")).serve_forever()


if __name__ == "__main__":
    try:
        main()
    except (ImproperlyConfigured, OSError) as error:
        sys.exit(f"The development issuer cannot start: {error}")
    except KeyboardInterrupt:
        pass
