"""Authorization codes: in memory, valid once and for a minute.

A code is bound to the client, the redirect URI and the PKCE challenge of its request.
"""

import base64
import hashlib
import hmac
import secrets
import threading
import time
from dataclasses import dataclass

CODE_SECONDS = 60


@dataclass(frozen=True)
class Authorization:
    """A granted authorization request (RFC 6749, 4.1.1; challenge: RFC 7636)."""

    client_id: str
    redirect_uri: str
    challenge: str
    nonce: str
    subject: str

    def allows(self, client_id: str, redirect_uri: str, verifier: str) -> bool:
        return (
            self.client_id == client_id
            and self.redirect_uri == redirect_uri
            and hmac.compare_digest(self.challenge.encode(), challenge_of(verifier).encode())
        )


def challenge_of(verifier: str) -> str:
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


class Codes:
    """The codes that are issued and not yet used. Each is valid for `seconds`."""

    def __init__(self, seconds: float = CODE_SECONDS) -> None:
        self.seconds = seconds
        self.lock = threading.Lock()
        self.issued: dict[str, tuple[float, Authorization]] = {}

    def issue(self, authorization: Authorization) -> str:
        code = secrets.token_urlsafe(24)
        now = time.monotonic()
        with self.lock:
            self.issued = {old: entry for old, entry in self.issued.items() if entry[0] > now}
            self.issued[code] = (now + self.seconds, authorization)
        return code

    def redeem(self, code: str) -> Authorization | None:
        """Return the authorization of a valid code; None for one that is redeemed already."""
        with self.lock:
            expires_at, authorization = self.issued.pop(code, (0.0, None))
        return authorization if expires_at > time.monotonic() else None
