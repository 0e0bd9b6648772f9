"""Operators sign in to the admin with their company account: OpenID Connect, authorization code with PKCE.

The flow is mozilla-django-oidc's. What that takes on trust is checked here: it would take an ID token for any audience
and of any issuer, fail on an expired one, and find users by an e-mail address that nobody has verified.
"""

import logging
from typing import Any

from django.conf import settings
from django.contrib import admin, auth
from django.contrib.auth import get_user_model
from django.contrib.auth.backends import ModelBackend
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from mozilla_django_oidc.auth import OIDCAuthenticationBackend
from mozilla_django_oidc.utils import import_from_settings
from mozilla_django_oidc.views import OIDCAuthenticationCallbackView, OIDCAuthenticationRequestView

from service_registry.identity.errors import KeysUnavailable, TokenInvalid
from service_registry.identity.fetching import FetchFailed, endpoint
from service_registry.identity.id_tokens import configured_trust, login_claims
from service_registry.identity.keys import provider
from service_registry.identity.login_endpoints import endpoints
from service_registry.identity.operators import signed_in
from service_registry.models import User

logger = logging.getLogger(__name__)

# Groups are read at login: what the provider takes away is gone within a working day.
SESSION_SECONDS = 10 * 3600

NOT_SET_UP = "Signing in with a company account is not set up here: OIDC_RP_CLIENT_ID is missing."
NOT_BEGUN = "This sign-in was not begun in this browser, or was finished before."
NOT_OURS = "This answer is not from the provider that this registry trusts."
PROVIDER_REFUSED = "Your provider did not sign you in."
TOKEN_REFUSED = "What your provider sent is not accepted."  # noqa: S105 (a sentence)
PROVIDER_AWAY = "Your provider does not answer as it should. Please try again in a moment."
DEACTIVATED = "Your account is deactivated in this registry."
NO_PERMISSION = "You are signed in at your provider, but none of your groups may use this registry's admin."


class AdminLoginBackend(OIDCAuthenticationBackend):  # type: ignore[misc]
    """Signs in whom a good ID token names. Permissions are those of the user's groups, as with any Django user."""

    def __init__(self) -> None:
        # Made for every request with a session: it must not ask the issuer for anything.
        self.UserModel = get_user_model()
        self.OIDC_RP_CLIENT_ID = settings.OIDC_RP_CLIENT_ID
        self.OIDC_RP_CLIENT_SECRET = settings.OIDC_RP_CLIENT_SECRET

    def authenticate(self, request: HttpRequest | None, *, nonce: str, code_verifier: str | None = None) -> User | None:
        """Raises FetchFailed, TokenInvalid, KeysUnavailable. A call with a password is not for this backend: Django
        sees from the arguments that it takes none."""
        user: User | None = super().authenticate(request, nonce=nonce, code_verifier=code_verifier)
        return user

    def get_token(self, payload: dict[str, str]) -> dict[str, Any]:
        fields = {name: value for name, value in payload.items() if name not in {"client_id", "client_secret"}}
        return endpoints.exchange(fields)

    def verify_token(self, token: Any, *, nonce: str) -> dict[str, Any]:
        return login_claims(token, nonce, configured_trust(), provider())

    def get_or_create_user(self, _access_token: Any, _id_token: Any, payload: dict[str, Any]) -> User:
        return signed_in(payload)

    def get_user(self, user_id: int) -> User | None:
        """None for a deactivated user, who is out with the next request."""
        user: User | None = ModelBackend.get_user(self, user_id)
        return user


class SignInView(OIDCAuthenticationRequestView):  # type: ignore[misc]
    """Sends the browser to the issuer."""

    @staticmethod
    def get_settings(attr: str, *args: Any) -> Any:
        """The library's view wants this endpoint from the settings when it is made; `get` finds it out."""
        return None if attr == "OIDC_OP_AUTHORIZATION_ENDPOINT" else import_from_settings(attr, *args)

    def get(self, request: HttpRequest) -> HttpResponse:
        if not settings.OIDC_RP_CLIENT_ID:
            return refused(request, 503, NOT_SET_UP)
        try:
            self.OIDC_OP_AUTH_ENDPOINT = endpoint(endpoints.metadata(), "authorization_endpoint")
        except FetchFailed as error:
            return refused(request, 503, PROVIDER_AWAY, error)
        response: HttpResponse = super().get(request)
        return response


class CallbackView(OIDCAuthenticationCallbackView):  # type: ignore[misc]
    """Where the issuer sends the browser back to. It may bring more parameters than we know."""

    user: User | None = None

    def get(self, request: HttpRequest) -> HttpResponse:
        if request.GET.get("state") not in request.session.get("oidc_states", {}):
            return refused(request, 400, NOT_BEGUN)
        # RFC 9207: the answer of another provider must not be taken for ours.
        if request.GET.get("iss", settings.OIDC_ISSUER) != settings.OIDC_ISSUER:
            return refused(request, 400, NOT_OURS)
        try:
            response: HttpResponse = super().get(request)
        except (FetchFailed, KeysUnavailable) as error:
            return refused(request, 503, PROVIDER_AWAY, error)
        except TokenInvalid as error:
            return refused(request, 403, TOKEN_REFUSED, error)
        return response

    def login_success(self) -> HttpResponse:
        """Into the admin, or a page for those who have nothing to do there: a redirect would send them round."""
        if self.user is None or not self.user.is_staff:
            auth.logout(self.request)
            return refused(self.request, 403, NO_PERMISSION)
        # A session of somebody else is emptied by the login, and with it what it says of the way on.
        way_on = self.success_url
        auth.login(self.request, self.user)
        self.request.session.set_expiry(SESSION_SECONDS)
        return HttpResponseRedirect(way_on)

    def login_failure(self) -> HttpResponse:
        return refused(self.request, 403, DEACTIVATED if self.user else PROVIDER_REFUSED)


def refused(request: HttpRequest, status: int, reason: str, error: Exception | None = None) -> HttpResponse:
    """A page that says why there is no login. What exactly was wrong goes to the log, without what was sent."""
    logger.warning("an operator's login ended: %s", error or reason)
    context = {**admin.site.each_context(request), "title": "Not signed in", "reason": reason}
    return render(request, "service_registry/sign_in_refused.html", context, status=status)
