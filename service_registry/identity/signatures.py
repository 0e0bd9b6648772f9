"""Verify signed tokens (RFC 7519, RFC 8725): signature, issuer, audience, times.

`access_tokens` and `id_tokens` check what kind of token it is, and read its claims.
"""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jwt

from service_registry.identity.exceptions import TokenInvalid
from service_registry.identity.key_provider import KeyProvider
from service_registry.identity.key_set import MAX_KID_CHARACTERS, KeySet
from service_registry.json_text import parse_strict

MAX_CHARACTERS = 8192
MAX_LIFETIME_SECONDS = 86400

# The texts of PyJWT may repeat parts of the token.
REASONS: dict[type[Exception], str] = {
    jwt.ExpiredSignatureError: "it has expired",
    jwt.ImmatureSignatureError: "it is not valid yet; the issuer's clock may be ahead",
    jwt.InvalidSignatureError: "its signature is wrong",
    jwt.InvalidAlgorithmError: "its algorithm is not that of its key",
    jwt.InvalidAudienceError: "it is for another audience",
    jwt.InvalidIssuerError: "it is from another issuer",
    jwt.MissingRequiredClaimError: "a claim is missing: exp, iat, sub, iss and aud are required",
}
MALFORMED = "it is not a well-formed signed token (JWT)"

jws = jwt.PyJWS()


@dataclass(frozen=True)
class TrustedIssuer:
    """An issuer whose tokens are accepted.

    Attributes:
        issuer: exactly as in `iss`.
        audience: the `aud` that its tokens must have.
        algorithms: the signature algorithms that are accepted.
        leeway_seconds: the tolerated difference between the issuer's clock and ours.
    """

    issuer: str
    audience: str
    algorithms: Sequence[str]
    leeway_seconds: float


@dataclass(frozen=True, slots=True)
class VerifiedToken:
    """A token with a valid signature, issuer, audience and times.

    Attributes:
        key_set: the set that contains the key of the signature.
    """

    header: dict[str, Any]
    claims: dict[str, Any]
    key_set: KeySet


def verify_token(token: str, trusted: TrustedIssuer, keys: KeyProvider) -> VerifiedToken:
    """Verify a signed token. Raises TokenInvalid, or KeysUnavailable.

    `iss` is compared before the signature, so that a token of another issuer never causes a fetch of keys.
    """
    require_length(token)
    try:
        header, unverified = decode_unverified(token)
        if unverified.get("iss") != trusted.issuer:
            raise jwt.InvalidIssuerError
        key_set, key = select_key(header, trusted, keys)
        claims = jwt.decode(
            token,
            key,
            algorithms=[header["alg"]],
            audience=trusted.audience,
            issuer=trusted.issuer,
            leeway=trusted.leeway_seconds,
            options={"require": ["exp", "iat", "sub", "iss", "aud"]},
        )
    except (jwt.PyJWTError, RecursionError) as error:
        raise TokenInvalid(REASONS.get(type(error), MALFORMED)) from error
    check_times(claims)
    return VerifiedToken(header, claims, key_set)


def require_length(token: str) -> None:
    if len(token) > MAX_CHARACTERS:
        raise TokenInvalid(f"it is longer than {MAX_CHARACTERS} characters")


def decode_unverified(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return header and claims without verifying them. Raises jwt.PyJWTError, TokenInvalid.

    Both are strict JSON, which every parser reads in the same way, PyJWT's own included. A token with `crit` asks for
    an extension, and is refused because there is none here (RFC 7515, 4.1.11); PyJWT accepts `b64` (RFC 7797).
    """
    if not token.isascii():
        raise jwt.DecodeError("not base64url")
    header = decode_header(token)
    if "crit" in header:
        raise TokenInvalid("its header names extensions that are not supported (crit)")
    payload: bytes = jws.decode_complete(token, options={"verify_signature": False})["payload"]
    return header, parse_strict_object(payload)


def decode_header(token: str) -> dict[str, Any]:
    """Return the header without verifying it. Raises jwt.DecodeError."""
    encoded = token.partition(".")[0]
    try:
        text = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
    except (binascii.Error, ValueError) as error:
        raise jwt.DecodeError("not base64url") from error
    return parse_strict_object(text)


def parse_strict_object(text: bytes) -> dict[str, Any]:
    """Parse a JSON object, and refuse repeated members (RFC 8725, 2.4).

    Another parser might use the other of two. Raises jwt.DecodeError.
    """
    try:
        value = parse_strict(text)
    except (ValueError, RecursionError) as error:
        raise jwt.DecodeError("not strict JSON") from error
    if not isinstance(value, dict):
        raise jwt.DecodeError("not a JSON object")
    return value


def read_key_id(token: str) -> str | None:
    """Return the id of the key that has signed the token, by its unverified header.

    Raises TokenInvalid.
    """
    try:
        kid = decode_header(token[:MAX_CHARACTERS]).get("kid")
    except jwt.DecodeError as error:
        raise TokenInvalid(MALFORMED) from error
    return kid if isinstance(kid, str) else None


def select_key(header: dict[str, Any], trusted: TrustedIssuer, keys: KeyProvider) -> tuple[KeySet, jwt.PyJWK]:
    """Return the key with the id and the algorithm of the header, and its key set.

    Raises TokenInvalid, KeysUnavailable, jwt.InvalidAlgorithmError. `jku`, `x5u`, `jwk` and `x5c` (RFC 7515, 4.1) are
    ignored: a token cannot choose the key to trust.
    """
    kid, algorithm = header.get("kid"), header.get("alg")
    if not isinstance(kid, str) or not 0 < len(kid) <= MAX_KID_CHARACTERS:
        raise TokenInvalid("it does not name its key (kid)")
    if not isinstance(algorithm, str) or algorithm not in trusted.algorithms:
        raise TokenInvalid("its algorithm is not accepted here")
    key_set = keys.current()
    if kid not in key_set.kids:
        key_set = keys.refresh_for_unknown_key()
    if kid not in key_set.kids:
        raise TokenInvalid("its key is not one of the issuer's")
    key = key_set.keys.get((kid, algorithm))
    if key is None:
        raise jwt.InvalidAlgorithmError
    return key_set, key


def check_times(claims: dict[str, Any]) -> None:
    """Check the types of the times, and the lifetime. Raises TokenInvalid.

    PyJWT accepts times that are strings, and any lifetime; a stolen token has to expire within a day.
    """
    for name in ("exp", "iat", "nbf"):
        if name in claims and type(claims[name]) not in {int, float}:
            raise TokenInvalid(f"its {name} is not a number")
    if claims["exp"] > claims["iat"] + MAX_LIFETIME_SECONDS:
        raise TokenInvalid("its lifetime is longer than a day")
