"""From an access token to its principal, without asking the issuer."""

import hashlib
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings

from service_registry.identity.errors import KeysUnavailable, TokenInvalid
from service_registry.identity.groups import groups_of
from service_registry.identity.key_set import KeySet
from service_registry.identity.keys import KeyProvider, provider
from service_registry.identity.principal import Principal, is_name
from service_registry.identity.signatures import MAX_CHARACTERS, Signed, Trust, kid_of, verified

# RFC 9068, 2.1, and what issuers send that do not follow it. Compared in lower case, since it is a media type.
HEADER_TYPES = {"at+jwt", "application/at+jwt", "jwt"}
# Keycloak's payload `typ` of tokens that are not for an API.
OTHER_KINDS = {"id", "refresh", "offline", "logout"}
# Only ID tokens have these (OpenID Connect Core, 2 and 3.1.3.6).
ID_TOKEN_CLAIMS = {"nonce", "at_hash", "c_hash"}

CACHE_SECONDS = 60
CACHE_ENTRIES = 10_000


@dataclass(frozen=True, slots=True)
class Verified:
    """The tokens that were verified with one key set; another set begins with none.

    A signature costs 100 us and more, this 2. Requests read without a lock.
    """

    key_set: KeySet
    at_most: int
    for_seconds: float
    entries: dict[bytes, tuple[Principal, float]] = field(default_factory=dict)
    adding: threading.Lock = field(default_factory=threading.Lock)

    def principal(self, digest: bytes) -> Principal | None:
        principal, until = self.entries.get(digest, (None, 0.0))
        if principal and time.monotonic() < until and time.time() < principal.expires_at:
            return principal
        return None

    def add(self, digest: bytes, principal: Principal) -> None:
        """Keep it for a while; when there are too many the oldest makes room."""
        with self.adding:
            self.entries.pop(digest, None)
            if len(self.entries) >= self.at_most:
                del self.entries[next(iter(self.entries))]
            self.entries[digest] = principal, time.monotonic() + self.for_seconds


class TokenVerifier:
    """Judges the access tokens of one issuer. `group_claims` are dotted paths. Remembered are so many verified tokens,
    for so long."""

    def __init__(
        self,
        trust: Trust,
        group_claims: Sequence[str],
        keys: KeyProvider,
        *,
        remembered: int = CACHE_ENTRIES,
        remembered_seconds: float = CACHE_SECONDS,
    ) -> None:
        self.trust = trust
        self.group_claims = group_claims
        self.keys = keys
        self._remembered = remembered, remembered_seconds
        self._verified: Verified | None = None

    def principal_of(self, token: str) -> Principal:
        """Whom the token speaks for. Raises TokenInvalid, or KeysUnavailable."""
        if len(token) > MAX_CHARACTERS:
            raise TokenInvalid(f"it is longer than {MAX_CHARACTERS} characters")
        known = self._verified_with(self.keys.current()).principal(digest_of(token))
        if known:
            return known
        signed = verified(token, self.trust, self.keys)
        check_kind(signed)
        principal = self._principal(signed.claims)
        self._verified_with(signed.key_set).add(digest_of(token), principal)
        return principal

    def principal_at_once_of(self, token: str) -> Principal | None:
        """The same, or None where a key might have to be fetched first. Raises TokenInvalid, or KeysUnavailable."""
        return self.principal_of(token) if kid_of(token) in self.keys.current().kids else None

    def _verified_with(self, key_set: KeySet) -> Verified:
        """What was verified with this very set. A set that was just replaced may bring an empty one: no harm."""
        cache = self._verified
        if cache is None or cache.key_set is not key_set:
            cache = self._verified = Verified(key_set, *self._remembered)
        return cache

    def _principal(self, claims: dict[str, Any]) -> Principal:
        subject = claims["sub"]
        if not is_name(subject):
            raise TokenInvalid("its sub is empty, too long, or holds control characters")
        client = next((claims[name] for name in ("azp", "client_id") if is_name(claims.get(name))), None)
        groups = groups_of(claims, self.group_claims)
        return Principal(self.trust.issuer, subject, client, groups, float(claims["exp"]))


def digest_of(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def check_kind(signed: Signed) -> None:
    """Refuse good signatures on what is no bearer access token. Raises TokenInvalid."""
    header_type = signed.header.get("typ", "JWT")
    if not isinstance(header_type, str) or header_type.lower() not in HEADER_TYPES:
        raise TokenInvalid("its header typ is not that of an access token")
    if str(signed.claims.get("typ")).lower() in OTHER_KINDS:
        raise TokenInvalid("it is no access token (typ)")
    if ID_TOKEN_CLAIMS & signed.claims.keys():
        raise TokenInvalid("it is an ID token; send the access token")
    if "cnf" in signed.claims:
        raise TokenInvalid("it is bound to a key or certificate (cnf), and would need proof of it")


_verifiers: dict[KeyProvider, TokenVerifier] = {}


def principal_of(token: str) -> Principal:
    """Whom an access token of the configured issuer speaks for.

    Raises TokenInvalid when it is refused, and KeysUnavailable when it cannot be judged. Neither repeats the token.
    """
    return verifier().principal_of(token)


def cached_principal_of(token: str) -> Principal | None:
    """The same without a wait for anything: None when a key might have to be fetched first, or it is refused."""
    try:
        return verifier().principal_at_once_of(token)
    except (TokenInvalid, KeysUnavailable):
        return None


def verifier() -> TokenVerifier:
    keys = provider()
    return _verifiers.get(keys) or _verifiers.setdefault(keys, configured(keys))


def configured(keys: KeyProvider) -> TokenVerifier:
    trust = Trust(settings.OIDC_ISSUER, settings.OIDC_AUDIENCE, settings.OIDC_ALGORITHMS, settings.OIDC_LEEWAY_SECONDS)
    return TokenVerifier(trust, settings.OIDC_GROUP_CLAIMS, keys)
