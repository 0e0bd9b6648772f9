"""Authorization codes: kept in memory, good once, for a minute, for one client, one address and one challenge."""

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
    """What a person has agreed to: RFC 6749, 4.1.1, with the challenge of RFC 7636."""

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
    """The codes that were given out and not yet used. Each is good for `seconds`."""

    def __init__(self, seconds: float = CODE_SECONDS) -> None:
        self.seconds = seconds
        self.lock = threading.Lock()
        self.given: dict[str, tuple[float, Authorization]] = {}

    def give(self, authorization: Authorization) -> str:
        code = secrets.token_urlsafe(24)
        now = time.monotonic()
        with self.lock:
            self.given = {old: entry for old, entry in self.given.items() if entry[0] > now}
            self.given[code] = (now + self.seconds, authorization)
        return code

    def take(self, code: str) -> Authorization | None:
        """What the code stands for, once: of two who bring the same code the second gets None."""
        with self.lock:
            expires_at, authorization = self.given.pop(code, (0.0, None))
        return authorization if expires_at > time.monotonic() else None
