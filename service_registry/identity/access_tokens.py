"""Verify access tokens locally, without a request to the issuer for each."""

import math
from collections.abc import Sequence

from django.conf import settings

from service_registry.identity.exceptions import TokenInvalid
from service_registry.identity.groups import read_groups
from service_registry.identity.key_provider import KeyProvider, get_key_provider
from service_registry.identity.principal import Principal, is_name
from service_registry.identity.signatures import (
    TrustedIssuer,
    VerifiedToken,
    read_key_id,
    require_length,
    verify_token,
)

# RFC 9068, 2.1, and the types of issuers that do not follow it. A media type is compared in lower case.
HEADER_TYPES = {"at+jwt", "application/at+jwt", "jwt"}
# The payload `typ` of Keycloak's tokens that are not for an API.
OTHER_TYPES = {"id", "refresh", "offline", "logout"}
# Only ID tokens have these claims (OpenID Connect Core, 2 and 3.1.3.6).
ID_TOKEN_CLAIMS = {"nonce", "at_hash", "c_hash"}


class TokenVerifier:
    """Verifies the access tokens of one issuer.

    Arguments:
        group_claims: dotted paths of the claims with group names.
    """

    def __init__(self, trusted: TrustedIssuer, group_claims: Sequence[str], keys: KeyProvider) -> None:
        self.trusted = trusted
        self.group_claims = group_claims
        self.keys = keys

    def verify(self, token: str) -> Principal:
        """Return the principal of a token. Raises TokenInvalid, or KeysUnavailable."""
        verified = verify_token(token, self.trusted, self.keys)
        check_type(verified)
        return self._read_principal(verified)

    def verify_at_once(self, token: str) -> Principal | None:
        """Return the principal, or None when keys may have to be fetched first.

        Raises TokenInvalid, or KeysUnavailable.
        """
        require_length(token)
        return self.verify(token) if read_key_id(token) in self.keys.current().kids else None

    def _read_principal(self, verified: VerifiedToken) -> Principal:
        claims = verified.claims
        subject = claims["sub"]
        if not is_name(subject):
            raise TokenInvalid("its sub is empty, too long, or has control characters")
        client = next((claims[name] for name in ("azp", "client_id") if is_name(claims.get(name))), None)
        groups = read_groups(claims, self.group_claims)
        # PyJWT ignores a fraction of a second, too.
        return Principal(self.trusted.issuer, subject, client, groups, math.floor(claims["exp"]), verified.key_set)


def check_type(verified: VerifiedToken) -> None:
    """Refuse tokens that are not bearer access tokens. Raises TokenInvalid."""
    header_type = verified.header.get("typ", "JWT")
    if not isinstance(header_type, str) or header_type.lower() not in HEADER_TYPES:
        raise TokenInvalid("its header typ is not that of an access token")
    if str(verified.claims.get("typ")).lower() in OTHER_TYPES:
        raise TokenInvalid("it is not an access token (typ)")
    if ID_TOKEN_CLAIMS & verified.claims.keys():
        raise TokenInvalid("it is an ID token; send the access token")
    if "cnf" in verified.claims:
        raise TokenInvalid("it is bound to a key or certificate (cnf), and proof of that is not supported")


_verifiers: dict[KeyProvider, TokenVerifier] = {}


def verify_access_token(token: str) -> Principal:
    """Return the principal of an access token of the configured issuer.

    Raises TokenInvalid when it is refused, and KeysUnavailable when it cannot be verified. Neither repeats the token.
    """
    return get_verifier().verify(token)


def verify_access_token_at_once(token: str) -> Principal | None:
    """Return the principal without waiting; None when it has to wait. Raises as `verify_access_token`."""
    return get_verifier().verify_at_once(token)


def get_verifier() -> TokenVerifier:
    """Return the verifier of this process for the configured issuer."""
    keys = get_key_provider()
    return _verifiers.get(keys) or _verifiers.setdefault(keys, create_configured_verifier(keys))


def create_configured_verifier(keys: KeyProvider) -> TokenVerifier:
    trusted = TrustedIssuer(
        settings.OIDC_ISSUER, settings.OIDC_AUDIENCE, settings.OIDC_ALGORITHMS, settings.OIDC_LEEWAY_SECONDS
    )
    return TokenVerifier(trusted, settings.OIDC_GROUP_CLAIMS, keys)
