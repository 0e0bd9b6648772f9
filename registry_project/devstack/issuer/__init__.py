"""An OIDC issuer for development, which accepts every login without a password.

It runs with DEBUG on and on loopback only.
"""

from service_registry.checks import DEVELOPMENT_ISSUER_PATH

PATH = DEVELOPMENT_ISSUER_PATH
LOOPBACK = "127.0.0.1"


def url(port: int) -> str:
    return f"http://{LOOPBACK}:{port}{PATH}"
