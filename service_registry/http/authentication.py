"""The caller of a request, from its Authorization header (RFC 6750, section 2.1)."""

from django.conf import settings

from service_registry.access_rules import AccessRules, access_rules
from service_registry.caller import Caller
from service_registry.exceptions import ClockIsWrong, NotAuthenticated
from service_registry.expiry import observation_window
from service_registry.http.callers import CallerCache, Generation, Identity
from service_registry.identity.access_tokens import verify_access_token, verify_access_token_at_once
from service_registry.identity.exceptions import KeysUnavailable, TokenInvalid
from service_registry.identity.key_provider import get_key_provider
from service_registry.identity.principal import Principal

callers = CallerCache()


def authenticate(authorization: bytes | None) -> Identity:
    """Return who makes a request with this header. It may wait for signing keys, or for the database.

    Raises:
        NotAuthenticated, TokenInvalid: no token, or one that is not accepted.
        CallerDenied: an operator has denied the caller.
        KeysUnavailable, ClockIsWrong, NotMigrated, django.db.Error: no token can be verified now.
    """
    authorization, token = read_token(authorization)
    rules = access_rules.current()
    identity = recall(authorization, rules) or judge(authorization, verify_access_token(token), rules)
    return identity.admit()


def authenticate_at_once(authorization: bytes | None) -> Identity | None:
    """Return who makes a request; None where that has to wait for keys or rules. Raises as `authenticate`.

    Only for a process that calls `renew_generation` every second.
    """
    if identity := callers.find(authorization):
        return identity.admit()
    authorization, token = read_token(authorization)
    rules = access_rules.latest
    if rules is None:
        return None
    if identity := recall(authorization, rules):
        return identity.admit()
    principal = verify_access_token_at_once(token)
    return judge(authorization, principal, rules).admit() if principal else None


def renew_generation() -> Generation | None:
    """Have callers judged by the present keys and rules; None while no token can be verified."""
    rules = access_rules.latest
    try:
        if rules is None or observation_window.process_pulse().clock_is_wrong:
            callers.generation = None
        else:
            callers.begin_generation(get_key_provider().current(), rules)
    except KeysUnavailable:
        callers.generation = None
    return callers.generation


def read_token(authorization: bytes | None) -> tuple[bytes, str]:
    """Return the header in its usual form, under which its caller is remembered, and the token.

    Raises:
        ClockIsWrong: this process's clock differs from the database's, so that it would check times wrongly.
        NotAuthenticated: there is no header.
        TokenInvalid: the header carries no bearer token.
    """
    if observation_window.process_pulse().clock_is_wrong:
        raise ClockIsWrong
    if authorization is None:
        raise NotAuthenticated
    scheme, _, token = authorization.partition(b" ")
    token = token.strip()
    if scheme.lower() != b"bearer" or not token:
        raise TokenInvalid("the Authorization header must be: Bearer, a space and the token")
    return b"Bearer " + token, token.decode("latin-1")


def recall(authorization: bytes, rules: AccessRules) -> Identity | None:
    """Return who has a token that the present keys have verified before, judged by these rules.

    Raises KeysUnavailable.
    """
    key_set = get_key_provider().current()
    callers.begin_generation(key_set, rules)
    if identity := callers.find(authorization):
        return identity
    principal = callers.find_principal(authorization, key_set)
    return judge(authorization, principal, rules) if principal else None


def judge(authorization: bytes, principal: Principal, rules: AccessRules) -> Identity:
    """Return the identity of a principal under these rules, and remember it."""
    identity = Identity(
        Caller(principal.actor, principal.groups, rules.granted_to(principal.groups)),
        principal,
        principal.expires_at + settings.OIDC_LEEWAY_SECONDS,
        callers.begin_generation(principal.key_set, rules),
        rules.is_denied(principal.issuer, principal.subject, principal.client),
    )
    callers.put(authorization, identity)
    return identity
