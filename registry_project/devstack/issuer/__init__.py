"""A development OIDC issuer: anybody on this machine may be anybody. It runs with DEBUG on and on loopback alone."""

# The settings know the development issuer by this path and refuse it with DEBUG off.
PATH = "/development-issuer"
LOOPBACK = "127.0.0.1"


def url(port: int) -> str:
    return f"http://{LOOPBACK}:{port}{PATH}"
