"""Keep each login that has begun in a signed cookie of its browser.

Visitors are anonymous until a login is finished, so that a row for each would let them fill the database. The cookie
binds state, nonce and PKCE verifier to the browser that began the login (RFC 9700, 4.7.1).
"""

import re
from dataclasses import asdict, dataclass, field

from django.conf import settings
from django.core import signing
from django.http import HttpRequest, HttpResponseBase
from django.utils.crypto import get_random_string

COOKIE_PREFIX = "registry-login-"
COOKIE_NAME = re.compile(f"{COOKIE_PREFIX}[A-Za-z0-9]{{32}}")
COOKIE_PATH = "/oidc/"
MAX_AGE_SECONDS = 600
# For each tab of a browser one. Proxies limit the Cookie header, nginx to 8 kB.
MAX_PENDING = 5
MAX_NEXT_CHARACTERS = 512


@dataclass(frozen=True)
class PendingLogin:
    """A login that a browser has begun and not finished.

    Attributes:
        next_url: the page to show after the login, already checked; None for the first page of the admin.
        state: a part of the cookie's name, so that tabs of one browser do not replace each other's cookie.
        code_verifier: of PKCE (RFC 7636).
    """

    next_url: str | None
    state: str = field(default_factory=lambda: get_random_string(32))
    nonce: str = field(default_factory=lambda: get_random_string(32))
    code_verifier: str = field(default_factory=lambda: get_random_string(64))

    @property
    def cookie_name(self) -> str:
        return f"{COOKIE_PREFIX}{self.state}"


def begin_login(next_url: str | None) -> PendingLogin:
    """Return a new login. A next page with an address too long for a cookie is dropped."""
    return PendingLogin(next_url if next_url and len(next_url) <= MAX_NEXT_CHARACTERS else None)


def save_login(login: PendingLogin, request: HttpRequest, response: HttpResponseBase) -> None:
    """Set the cookie of a login. The oldest of MAX_PENDING others is deleted: browsers send the oldest first."""
    others = [name for name in request.COOKIES if COOKIE_NAME.fullmatch(name)]
    if len(others) >= MAX_PENDING:
        response.delete_cookie(others[0], COOKIE_PATH)
    response.set_cookie(
        login.cookie_name,
        signing.dumps(asdict(login), salt=login.cookie_name),
        max_age=MAX_AGE_SECONDS,
        path=COOKIE_PATH,
        secure=settings.SESSION_COOKIE_SECURE,
        httponly=True,
        samesite="Lax",
    )


def find_login(request: HttpRequest) -> PendingLogin | None:
    """Return the login that this browser began with the state in the query, at most MAX_AGE_SECONDS ago."""
    name = f"{COOKIE_PREFIX}{request.GET.get('state', '')}"
    try:
        return PendingLogin(**signing.loads(request.COOKIES.get(name, ""), salt=name, max_age=MAX_AGE_SECONDS))
    except signing.BadSignature:
        return None


def delete_login(login: PendingLogin, response: HttpResponseBase) -> None:
    """Delete the cookie of a login: the browser can finish it once."""
    response.delete_cookie(login.cookie_name, COOKIE_PATH)
