"""Signed tokens (RFC 7519, checked as RFC 8725 advises): signature, issuer, audience and times. What kind of token it
is and what it says is judged by `tokens` (access tokens) and `admin_login` (ID tokens)."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jwt

from service_registry.identity.errors import TokenInvalid
from service_registry.identity.key_set import MAX_KID_CHARACTERS, KeySet
from service_registry.identity.keys import KeyProvider

MAX_CHARACTERS = 8192
LONGEST_LIFE_SECONDS = 86400

# PyJWT's own texts may repeat what was sent.
REASONS: dict[type[Exception], str] = {
    jwt.ExpiredSignatureError: "it has expired",
    jwt.ImmatureSignatureError: "it is not valid yet; the issuer's clock may be ahead",
    jwt.InvalidSignatureError: "its signature is not good",
    jwt.InvalidAlgorithmError: "its algorithm is not that of its key",
    jwt.InvalidAudienceError: "it is meant for another audience",
    jwt.InvalidIssuerError: "it is of another issuer",
    jwt.MissingRequiredClaimError: "a claim is missing: exp, iat, sub, iss and aud are required",
}


@dataclass(frozen=True)
class Trust:
    """One issuer whose tokens are taken: its exact name, whom they must be meant for, how they may be signed."""

    issuer: str
    audience: str
    algorithms: Sequence[str]
    leeway_seconds: float


@dataclass(frozen=True, slots=True)
class Signed:
    """A token whose signature, issuer, audience and times are good, and the set that holds its key."""

    header: dict[str, Any]
    claims: dict[str, Any]
    key_set: KeySet


class StrictJWT(jwt.PyJWT):
    def _decode_payload(self, decoded: dict[str, Any]) -> dict[str, Any]:
        return strict_object(decoded["payload"])


strict_jwt = StrictJWT()


def strict_object(text: bytes) -> dict[str, Any]:
    """A JSON object without duplicate members, NaN or Infinity. Raises jwt.DecodeError.

    Of two members with one name another reader might take the other one (RFC 8725, 2.4).
    """
    try:
        value = json.loads(text, object_pairs_hook=without_duplicates, parse_constant=refuse_constant)
    except (ValueError, RecursionError) as error:
        raise jwt.DecodeError("not strict JSON") from error
    if not isinstance(value, dict):
        raise jwt.DecodeError("not a JSON object")
    return value


def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member comes twice")
    return members


def refuse_constant(_name: str) -> None:
    raise ValueError("not a JSON number")


def verified(token: str, trust: Trust, keys: KeyProvider) -> Signed:
    """Verify a signed token. Raises TokenInvalid, or KeysUnavailable.

    The issuer is compared first, unverified, so that a token of another issuer never makes ours fetch keys.
    """
    if len(token) > MAX_CHARACTERS:
        raise TokenInvalid(f"it is longer than {MAX_CHARACTERS} characters")
    try:
        header, claimed = unverified(token)
        if claimed.get("iss") != trust.issuer:
            raise jwt.InvalidIssuerError
        key_set, key = key_for(header, trust, keys)
        claims = strict_jwt.decode(
            token,
            key,
            algorithms=[header["alg"]],
            audience=trust.audience,
            issuer=trust.issuer,
            leeway=trust.leeway_seconds,
            options={"require": ["exp", "iat", "sub", "iss", "aud"]},
        )
    except jwt.PyJWTError as error:
        raise TokenInvalid(REASONS.get(type(error), "it is not a signed token (JWT) in good form")) from error
    check_times(claims)
    return Signed(header, claims, key_set)


def unverified(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims as they are written. Raises jwt.PyJWTError."""
    if not token.isascii():
        raise jwt.DecodeError("not base64url")
    claims: dict[str, Any] = strict_jwt.decode(token, options={"verify_signature": False})
    return strict_object(jwt.utils.base64url_decode(token.split(".", 1)[0])), claims


def kid_of(token: str) -> str | None:
    """The name of the key that the token says has signed it. Raises TokenInvalid."""
    try:
        header = strict_object(jwt.utils.base64url_decode(token[:MAX_CHARACTERS].split(".", 1)[0]))
    except (jwt.PyJWTError, ValueError) as error:
        raise TokenInvalid("it is not a signed token (JWT) in good form") from error
    kid = header.get("kid")
    return kid if isinstance(kid, str) else None


def key_for(header: dict[str, Any], trust: Trust, keys: KeyProvider) -> tuple[KeySet, jwt.PyJWK]:
    """The one key that may have signed it: of this name and for this algorithm. Raises TokenInvalid, KeysUnavailable.

    `jku`, `x5u`, `jwk` and `x5c` (RFC 7515, 4.1) are not looked at: a token does not say which key is to be trusted.
    """
    kid, algorithm = header.get("kid"), header.get("alg")
    if not isinstance(kid, str) or not 0 < len(kid) <= MAX_KID_CHARACTERS:
        raise TokenInvalid("it does not name its key (kid)")
    if not isinstance(algorithm, str) or algorithm not in trust.algorithms:
        raise TokenInvalid("its algorithm is not accepted here")
    key_set = keys.current()
    if kid not in key_set.kids:
        key_set = keys.asked_again()
    if kid not in key_set.kids:
        raise TokenInvalid("its key is not one of the issuer's")
    key = key_set.keys.get((kid, algorithm))
    if key is None:
        raise jwt.InvalidAlgorithmError
    return key_set, key


def check_times(claims: dict[str, Any]) -> None:
    """PyJWT takes times as strings and of any length; a stolen token must end within a day. Raises TokenInvalid."""
    for name in ("exp", "iat", "nbf"):
        if name in claims and type(claims[name]) not in {int, float}:
            raise TokenInvalid(f"its {name} is not a number")
    if claims["exp"] > claims["iat"] + LONGEST_LIFE_SECONDS:
        raise TokenInvalid("it is good for longer than a day")
