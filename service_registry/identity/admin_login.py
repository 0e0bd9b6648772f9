"""Sign operators in to the admin by OpenID Connect, authorization code with PKCE.

mozilla-django-oidc requests the token. This module adds the checks that it does not make: it accepts an ID token of
any audience and issuer, raises an unhandled error for an expired one, and finds users by an unverified e-mail address.
Its views keep logins in the session, which is a row for every visitor that begins one, so that they are not used.
"""

import logging
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.contrib import admin, auth
from django.contrib.auth import REDIRECT_FIELD_NAME, get_user_model
from django.contrib.auth.backends import ModelBackend
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.views import View
from mozilla_django_oidc.auth import OIDCAuthenticationBackend
from mozilla_django_oidc.utils import absolutify, generate_code_challenge
from mozilla_django_oidc.views import get_next_url

from service_registry.access_models import User
from service_registry.identity import pending_logins
from service_registry.identity.exceptions import KeysUnavailable, TokenInvalid, TooManyLogins
from service_registry.identity.id_tokens import trusted_issuer_of_logins, verify_id_token
from service_registry.identity.issuer_client import FetchFailed, get_endpoint
from service_registry.identity.key_provider import get_key_provider
from service_registry.identity.login_endpoints import endpoints
from service_registry.identity.login_limits import count_login_attempt
from service_registry.identity.operators import sign_in_operator
from service_registry.identity.pending_logins import PendingLogin

logger = logging.getLogger(__name__)

NOT_CONFIGURED = "Signing in with a company account is not configured: OIDC_RP_CLIENT_ID is missing."
UNKNOWN_LOGIN = "This browser did not start this sign-in, or has already finished it."
OTHER_ISSUER = "This answer is not from the provider that this registry trusts."
PROVIDER_REFUSED = "Your provider did not sign you in."
TOKEN_REFUSED = "The token of your provider is not accepted."  # noqa: S105 (a sentence)
PROVIDER_UNAVAILABLE = "Your provider does not answer correctly. Please try again in a moment."
DEACTIVATED = "Your account is deactivated in this registry."
NO_PERMISSION = "You are signed in at your provider, but none of your groups may use this registry's admin."


class AdminLoginBackend(OIDCAuthenticationBackend):  # type: ignore[misc]
    """Signs in the operator of a verified ID token."""

    def __init__(self) -> None:
        # Django creates a backend for every request with a session: no requests to the issuer here.
        self.UserModel = get_user_model()
        self.OIDC_RP_CLIENT_ID = settings.OIDC_RP_CLIENT_ID
        self.OIDC_RP_CLIENT_SECRET = settings.OIDC_RP_CLIENT_SECRET

    def authenticate(self, request: HttpRequest | None, *, nonce: str, code_verifier: str | None = None) -> User | None:
        """Return the user of a login. Raises FetchFailed, TokenInvalid, KeysUnavailable.

        Django does not call this for a login by password, since the arguments do not match.
        """
        user: User | None = super().authenticate(request, nonce=nonce, code_verifier=code_verifier)
        return user

    def get_token(self, payload: dict[str, str]) -> dict[str, Any]:
        fields = {name: value for name, value in payload.items() if name not in {"client_id", "client_secret"}}
        return endpoints.exchange(fields)

    def verify_token(self, token: Any, *, nonce: str) -> dict[str, Any]:
        return verify_id_token(token, nonce, trusted_issuer_of_logins(), get_key_provider())

    def get_or_create_user(self, _access_token: Any, _id_token: Any, payload: dict[str, Any]) -> User:
        return sign_in_operator(payload)

    def get_user(self, user_id: int) -> User | None:
        """Return the user of a session; None, which ends it, when it is deactivated."""
        user: User | None = ModelBackend.get_user(self, user_id)
        return user


class SignInView(View):
    """Redirects the browser to the issuer (OpenID Connect Core, 3.1.2.1)."""

    http_method_names = ("get",)

    def get(self, request: HttpRequest) -> HttpResponse:
        if not settings.OIDC_RP_CLIENT_ID:
            return render_refusal(request, 503, NOT_CONFIGURED)
        count_login_attempt(request)
        try:
            endpoint = get_endpoint(endpoints.metadata(), "authorization_endpoint")
        except FetchFailed as error:
            return render_refusal(request, 503, PROVIDER_UNAVAILABLE, error)
        login = pending_logins.begin_login(get_next_url(request, REDIRECT_FIELD_NAME))
        response = HttpResponseRedirect(f"{endpoint}?{urlencode(authorization_request(request, login))}")
        pending_logins.save_login(login, request, response)
        return response


class CallbackView(View):
    """Receives the browser back from the issuer. Unknown parameters are ignored."""

    http_method_names = ("get",)

    def get(self, request: HttpRequest) -> HttpResponse:
        login = pending_logins.find_login(request)
        if login is None:
            return render_refusal(request, 400, UNKNOWN_LOGIN)
        count_login_attempt(request)
        response = finish_login(request, login)
        pending_logins.delete_login(login, response)
        return response


def authorization_request(request: HttpRequest, login: PendingLogin) -> dict[str, str]:
    return {
        "response_type": "code",
        "scope": settings.OIDC_RP_SCOPES,
        "client_id": settings.OIDC_RP_CLIENT_ID,
        "redirect_uri": absolutify(request, reverse("oidc_authentication_callback")),
        "state": login.state,
        "nonce": login.nonce,
        "code_challenge": generate_code_challenge(login.code_verifier, "S256"),
        "code_challenge_method": "S256",
    }


def finish_login(request: HttpRequest, login: PendingLogin) -> HttpResponse:
    """Exchange the code, and sign the operator in. Every refusal is a page."""
    # RFC 9207: an answer of another issuer must not be accepted.
    if request.GET.get("iss", settings.OIDC_ISSUER) != settings.OIDC_ISSUER:
        return render_refusal(request, 400, OTHER_ISSUER)
    if "error" in request.GET:
        return render_refusal(request, 403, PROVIDER_REFUSED)
    try:
        user = auth.authenticate(request, nonce=login.nonce, code_verifier=login.code_verifier)
    except (FetchFailed, KeysUnavailable) as error:
        return render_refusal(request, 503, PROVIDER_UNAVAILABLE, error)
    except TokenInvalid as error:
        return render_refusal(request, 403, TOKEN_REFUSED, error)
    if user is None:
        return render_refusal(request, 403, PROVIDER_REFUSED)
    return start_session(request, user, login)


def start_session(request: HttpRequest, user: User, login: PendingLogin) -> HttpResponse:
    """Start the session of a user, and redirect to the page for which the login began.

    Users without admin access get a page: a redirect would lead back to the sign-in page in a loop.
    """
    if not user.is_active:
        return render_refusal(request, 403, DEACTIVATED)
    if not user.is_staff:
        auth.logout(request)
        return render_refusal(request, 403, NO_PERMISSION)
    auth.login(request, user)
    return HttpResponseRedirect(login.next_url or reverse(settings.LOGIN_REDIRECT_URL))


def render_refusal(request: HttpRequest, status: int, reason: str, error: Exception | None = None) -> HttpResponse:
    """Render a page with the reason.

    The log gets the details, without any of the data that was received.
    """
    logger.warning("the login of an operator failed: %s", error or reason)
    context = {**admin.site.each_context(request), "title": "Not signed in", "reason": reason}
    return render(request, "service_registry/sign_in_refused.html", context, status=status)


def render_limit(request: HttpRequest, error: TooManyLogins) -> HttpResponse:
    """Render a page that says when the client may try again."""
    response = render_refusal(request, 429, str(error))
    response["Retry-After"] = str(error.retry_after_seconds)
    return response


def add_password_login(_request: HttpRequest) -> dict[str, bool]:
    """Give templates `password_login`: local users may sign in with a password. A context processor of Django's."""
    return {"password_login": settings.REGISTRY_PASSWORD_LOGIN}
