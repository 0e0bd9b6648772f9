"""The issuer's signing key: RS256, created once, in `<data>/issuer/key.pem`."""

import base64
import functools
import hashlib
import json
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from registry_project.devstack.secret_files import read_or_create

ALGORITHM = "RS256"


def new_key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def location(data_dir: Path) -> Path:
    return data_dir / "issuer" / "key.pem"


@functools.cache
def private_key(data_dir: Path) -> rsa.RSAPrivateKey:
    text = read_or_create(location(data_dir), new_key)
    key = serialization.load_pem_private_key(text.encode(), password=None)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise ValueError("The development issuer's key.pem must contain an RSA key.")
    return key


@functools.cache
def public_jwk(data_dir: Path) -> dict[str, str]:
    """Return the key as it is published.

    Its `kid` is its thumbprint (RFC 7638), which changes only with the key.
    """
    jwk: dict[str, str] = jwt.algorithms.RSAAlgorithm.to_jwk(private_key(data_dir).public_key(), as_dict=True)
    members = json.dumps({name: jwk[name] for name in ("e", "kty", "n")}, separators=(",", ":"))
    kid = base64.urlsafe_b64encode(hashlib.sha256(members.encode()).digest()).decode().rstrip("=")
    return {"kty": jwk["kty"], "n": jwk["n"], "e": jwk["e"], "kid": kid, "use": "sig", "alg": ALGORITHM}


def sign(data_dir: Path, claims: dict[str, Any], token_type: str) -> str:
    headers = {"kid": public_jwk(data_dir)["kid"], "typ": token_type}
    return jwt.encode(claims, private_key(data_dir), algorithm=ALGORITHM, headers=headers)


def verify_access_token(data_dir: Path, issuer: str, token: str) -> dict[str, Any]:
    """Return the claims of an access token of this issuer, for any audience.

    Raises jwt.PyJWTError.
    """
    claims: dict[str, Any] = jwt.decode(
        token,
        private_key(data_dir).public_key(),
        algorithms=[ALGORITHM],
        issuer=issuer,
        options={"require": ["exp", "iat", "sub"], "verify_aud": False},
    )
    if jwt.get_unverified_header(token).get("typ") != "at+jwt":
        raise jwt.InvalidTokenError("It is not an access token.")
    return claims
