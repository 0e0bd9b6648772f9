"""Create access tokens (RFC 9068) and ID tokens (OpenID Connect Core, 2)."""

import base64
import hashlib
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from registry_project.devstack.issuer import clients, keys
from registry_project.devstack.issuer.people import Person

ACCESS_TOKEN_SECONDS = 3600


def issue_token(
    data_dir: Path,
    issuer_url: str,
    subject: str,
    groups: Sequence[str],
    audience: str,
    *,
    ttl_seconds: int = ACCESS_TOKEN_SECONDS,
    client_id: str = clients.DEVELOPER,
) -> str:
    """Return an access token for `subject`, valid for `ttl_seconds` from now.

    Only the issuer's key in `data_dir` is needed; the issuer does not have to run.
    """
    claims = {"aud": audience, "client_id": client_id, "jti": secrets.token_urlsafe(12), "groups": list(groups)}
    return keys.sign(data_dir, {**base_claims(issuer_url, subject, ttl_seconds), **claims}, "at+jwt")


def id_token(data_dir: Path, issuer_url: str, person: Person, client_id: str, *, nonce: str, access_token: str) -> str:
    claims = {**base_claims(issuer_url, person.subject, ACCESS_TOKEN_SECONDS), **profile(person)}
    claims |= {"aud": client_id, "azp": client_id, "at_hash": at_hash(access_token)}
    if nonce:
        claims["nonce"] = nonce
    return keys.sign(data_dir, claims, "JWT")


def base_claims(issuer_url: str, subject: str, ttl_seconds: int) -> dict[str, Any]:
    now = int(time.time())
    return {"iss": issuer_url, "sub": subject, "iat": now, "exp": now + ttl_seconds}


def profile(person: Person) -> dict[str, Any]:
    return {
        "name": person.name,
        "preferred_username": person.subject,
        "email": person.email,
        "email_verified": True,
        "groups": list(person.groups),
    }


def at_hash(access_token: str) -> str:
    """Return the left half of the token's hash (OpenID Connect Core, 3.1.3.6)."""
    digest = hashlib.sha256(access_token.encode()).digest()
    return base64.urlsafe_b64encode(digest[:16]).decode().rstrip("=")
