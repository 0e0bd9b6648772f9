"""The OAuth clients of the issuer.

Their secrets are created at first start, in `<data>/issuer/clients.json`.
"""

import hmac
import json
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from registry_project.devstack.secret_files import new_secret, read_or_create

ADMIN = "service-registry-admin"
DEVELOPER = "developer"
# The characters of RFC 3986, section 2, without that of a fragment.
URI = re.compile(r"[A-Za-z0-9._~:/?\[\]@!$&'()*+,;=%-]+")
GRANTS = {ADMIN: "authorization_code", DEVELOPER: "client_credentials"}


@dataclass(frozen=True)
class Client:
    client_id: str
    secret: str

    def may(self, grant: str) -> bool:
        return GRANTS.get(self.client_id) == grant

    def has(self, secret: str) -> bool:
        return hmac.compare_digest(self.secret.encode(), secret.encode())


def all_clients(data_dir: Path) -> dict[str, Client]:
    text = read_or_create(data_dir / "issuer" / "clients.json", new_clients)
    return {client_id: Client(client_id, secret) for client_id, secret in json.loads(text).items()}


def new_clients() -> str:
    return json.dumps({client_id: new_secret() for client_id in GRANTS}, indent=1)


def on_loopback(uri: str) -> bool:
    """Return whether a browser may be redirected to this address.

    It must be on loopback (RFC 8252, 7.3) and have no fragment (RFC 6749, 3.1.2). Python's parser ignores line breaks,
    which would end the Location header, and browsers read a backslash as a slash: both are no characters of a URI.
    """
    if not URI.fullmatch(uri):
        return False
    try:
        parts = urlsplit(uri)
        host = parts.hostname
    except ValueError:
        return False
    return parts.scheme == "http" and host in {"127.0.0.1", "::1", "localhost"}
