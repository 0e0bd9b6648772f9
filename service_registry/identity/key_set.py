"""An issuer's published keys (RFC 7517), and which of them may verify a signature here."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jwt

MAX_KEYS = 50
MAX_KID_CHARACTERS = 256
RSA_BITS = range(2048, 8193)
RSA_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")

# Key type and curve to the algorithms that such a key may serve. Without an `alg` it serves the first.
ALGORITHMS: dict[tuple[str, str | None], tuple[str, ...]] = {
    ("RSA", None): RSA_ALGORITHMS,
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("OKP", "Ed25519"): ("EdDSA",),
}
SUPPORTED_ALGORITHMS = frozenset(algorithm for algorithms in ALGORITHMS.values() for algorithm in algorithms)
PUBLIC_MEMBERS = {"kty", "kid", "n", "e", "crv", "x", "y"}
PRIVATE_MEMBERS = {"d", "p", "q", "dp", "dq", "qi", "oth", "k"}


class KeySetUnusable(Exception):
    """What the issuer publishes is no key set, or holds no key that may verify a signature here."""


@dataclass(frozen=True, eq=False, slots=True)
class KeySet:
    """The keys of one issuer, each for one algorithm. Never changed: a new set replaces it whole.

    `document` is the set as it may be stored and read again: public members only.
    """

    keys: Mapping[tuple[str, str], jwt.PyJWK]
    document: dict[str, Any]
    kids: frozenset[str]

    @classmethod
    def of(cls, document: Any) -> "KeySet":
        """Read a JWK set. Raises KeySetUnusable.

        Keys that may not verify are left out; so are two that claim one name and one algorithm, since it cannot be told
        which of them is meant.
        """
        published = document.get("keys") if isinstance(document, dict) else None
        if not isinstance(published, list):
            raise KeySetUnusable("it is not a JSON object with a list of keys")
        if len(published) > MAX_KEYS:
            raise KeySetUnusable(f"it has more than {MAX_KEYS} keys")
        usable = [jwk for jwk in map(verifying_jwk, published) if jwk]
        times = Counter(identity(jwk) for jwk in usable)
        single = sorted((jwk for jwk in usable if times[identity(jwk)] == 1), key=identity)
        keys = {identity(jwk): key for jwk in single if (key := loaded(jwk))}
        if not keys:
            raise KeySetUnusable("it has no key that may verify signatures")
        kept = [jwk for jwk in single if identity(jwk) in keys]
        return cls(keys, {"keys": kept}, frozenset(kid for kid, _ in keys))


def identity(jwk: dict[str, str]) -> tuple[str, str]:
    return jwk["kid"], jwk["alg"]


def verifying_jwk(jwk: Any) -> dict[str, str] | None:
    """The public members of a key that is published for signatures, with its one algorithm; None for any other key."""
    if not isinstance(jwk, dict) or PRIVATE_MEMBERS & jwk.keys() or not is_for_signatures(jwk):
        return None
    public = {name: value for name, value in jwk.items() if name in PUBLIC_MEMBERS}
    if not all(isinstance(value, str) for value in public.values()):
        return None
    algorithms = ALGORITHMS.get((public.get("kty", ""), public.get("crv")), ())
    algorithm = jwk.get("alg", algorithms[0] if algorithms else None)
    if algorithm not in algorithms or not 0 < len(public.get("kid", "")) <= MAX_KID_CHARACTERS:
        return None
    return {**public, "alg": algorithm}


def is_for_signatures(jwk: dict[str, Any]) -> bool:
    """RFC 7517, 4.2 and 4.3. Both members may be missing."""
    operations = jwk.get("key_ops", ["verify"])
    return jwk.get("use", "sig") == "sig" and isinstance(operations, list) and "verify" in operations


def loaded(jwk: dict[str, str]) -> jwt.PyJWK | None:
    """The key itself, bound to its algorithm; None when it is malformed or too weak."""
    try:
        key = jwt.PyJWK(jwk, jwk["alg"])
    except (jwt.PyJWTError, ValueError):
        return None
    if jwk["kty"] == "RSA" and key.key.key_size not in RSA_BITS:
        return None
    return key
