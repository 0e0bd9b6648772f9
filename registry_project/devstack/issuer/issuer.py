"""The endpoints of the issuer, without HTTP.

Each takes a form and returns a response, or raises OAuthError.
"""

import json
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import jwt

from registry_project.devstack.issuer import clients, codes, keys, pages, tokens
from registry_project.devstack.issuer.clients import Client
from registry_project.devstack.issuer.people import PEOPLE, Person

Form = dict[str, str]


class OAuthError(Exception):
    """A refusal with an error code of RFC 6749, 5.2 or 4.1.2.1, and a sentence."""

    def __init__(self, code: str, description: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(description)
        self.code = code
        self.description = description
        self.status = status

    def as_dict(self) -> dict[str, str]:
        return {"error": self.code, "error_description": self.description}


@dataclass(frozen=True)
class Response:
    status: HTTPStatus
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


def as_json(document: dict[str, Any], status: HTTPStatus = HTTPStatus.OK) -> Response:
    return Response(status, json.dumps(document).encode(), {"Content-Type": "application/json"})


def as_page(page: str, status: HTTPStatus = HTTPStatus.OK) -> Response:
    headers = {"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": pages.CONTENT_SECURITY_POLICY}
    return Response(status, page.encode(), headers)


def redirect(uri: str, parameters: Form) -> Response:
    separator = "&" if "?" in uri else "?"
    query = f"{separator}{urlencode(parameters)}" if parameters else ""
    return Response(HTTPStatus.FOUND, headers={"Location": uri + query})


class Issuer:
    """The development issuer at one address, with its key, clients and codes.

    Arguments:
        audience: `aud` of its access tokens.
    """

    def __init__(self, url: str, data_dir: Path, audience: str) -> None:
        self.url = url
        self.data_dir = data_dir
        self.audience = audience
        self.codes = codes.Codes()
        self.clients = clients.all_clients(data_dir)
        keys.public_jwk(data_dir)  # created now rather than by the first request

    def discovery(self) -> Response:
        """OpenID Connect Discovery, 3."""
        return as_json(
            {
                "issuer": self.url,
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
                "userinfo_endpoint": f"{self.url}/userinfo",
                "jwks_uri": f"{self.url}/jwks",
                "end_session_endpoint": f"{self.url}/end_session",
                "response_types_supported": ["code"],
                "response_modes_supported": ["query"],
                "grant_types_supported": ["authorization_code", "client_credentials"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": [keys.ALGORITHM],
                "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
                "code_challenge_methods_supported": ["S256"],
                "scopes_supported": ["openid", "profile", "email"],
                "claims_supported": ["sub", "name", "preferred_username", "email", "groups"],
                "authorization_response_iss_parameter_supported": True,
            }
        )

    def jwks(self) -> Response:
        return as_json({"keys": [keys.public_jwk(self.data_dir)]})

    def authorize(self, form: Form) -> Response:
        """Show the people to pick from; redirect with a code when one is picked.

        RFC 6749, 4.1.1.

        An unknown client or redirect URI gets an error page: a browser is never redirected to such an address.
        """
        client = self.clients.get(form.get("client_id", ""))
        redirect_uri = form.get("redirect_uri", "")
        if client is None or not client.may("authorization_code") or not clients.on_loopback(redirect_uri):
            return as_page(pages.refusal("This client or its redirect URI is not known."), HTTPStatus.BAD_REQUEST)
        back = {"state": form["state"]} if "state" in form else {}
        try:
            check_authorization(form)
            if "subject" not in form:
                return as_page(pages.login(f"{self.url}/authorize", client.client_id, form))
            code = self.codes.issue(authorization(form, find_person(form["subject"])))
        except OAuthError as error:
            return redirect(redirect_uri, {**error.as_dict(), **back, "iss": self.url})
        return redirect(redirect_uri, {"code": code, **back, "iss": self.url})

    def token(self, form: Form, basic: tuple[str, str] | None) -> Response:
        """Exchange a grant for tokens (RFC 6749, 3.2).

        `basic` is the name and secret of the client, if the Authorization header has them.
        """
        client = self.authenticate_client(form, basic)
        grant = form.get("grant_type", "")
        if grant not in clients.GRANTS.values():
            raise OAuthError("unsupported_grant_type", "grant_type must be authorization_code or client_credentials.")
        if not client.may(grant):
            raise OAuthError("unauthorized_client", f"The client {client.client_id} may not use {grant}.")
        document = self.exchange(client, form) if grant == "authorization_code" else self.grant(client, form)
        response = as_json({**document, "token_type": "Bearer", "expires_in": tokens.ACCESS_TOKEN_SECONDS})
        response.headers["Cache-Control"] = "no-store"
        return response

    def authenticate_client(self, form: Form, basic: tuple[str, str] | None) -> Client:
        client_id, secret = basic or (form.get("client_id", ""), form.get("client_secret", ""))
        client = self.clients.get(client_id)
        if client is None or not client.has(secret):
            raise OAuthError("invalid_client", "The client or its secret is not known.", HTTPStatus.UNAUTHORIZED)
        return client

    def exchange(self, client: Client, form: Form) -> dict[str, Any]:
        granted = self.codes.redeem(form.get("code", ""))
        verifier = form.get("code_verifier", "")
        if granted is None or not granted.allows(client.client_id, form.get("redirect_uri", ""), verifier):
            raise OAuthError(
                "invalid_grant",
                "The code was used, has expired, or belongs to another client, redirect URI or verifier.",
            )
        person = find_person(granted.subject)
        access = self.access_token(person.subject, person.groups, client)
        id_token = tokens.id_token(
            self.data_dir, self.url, person, client.client_id, nonce=granted.nonce, access_token=access
        )
        return {"access_token": access, "id_token": id_token, "scope": "openid profile email"}

    def grant(self, client: Client, form: Form) -> dict[str, Any]:
        """client_credentials.

        Two parameters are added: `subject` and `groups` (separated by spaces) of the token.
        """
        subject = form.get("subject") or client.client_id
        return {"access_token": self.access_token(subject, form.get("groups", "").split(), client)}

    def access_token(self, subject: str, groups: tuple[str, ...] | list[str], client: Client) -> str:
        return tokens.issue_token(self.data_dir, self.url, subject, groups, self.audience, client_id=client.client_id)

    def userinfo(self, bearer: str) -> Response:
        try:
            claims = keys.verify_access_token(self.data_dir, self.url, bearer)
        except jwt.PyJWTError:
            raise OAuthError("invalid_token", "The access token is not valid.", HTTPStatus.UNAUTHORIZED) from None
        known = PEOPLE.get(claims["sub"])
        profile = tokens.profile(known) if known else {"groups": claims["groups"]}
        return as_json({"sub": claims["sub"], **profile})

    def end_session(self, form: Form) -> Response:
        """Sign out (OpenID Connect RP-Initiated Logout, 2): there are no sessions to end."""
        target = form.get("post_logout_redirect_uri", "")
        if not target:
            return as_page(pages.message("You are signed out."))
        if not clients.on_loopback(target):
            return as_page(pages.refusal("The page to return to is not known."), HTTPStatus.BAD_REQUEST)
        return redirect(target, {"state": form["state"]} if "state" in form else {})


def check_authorization(form: Form) -> None:
    if form.get("response_type") != "code":
        raise OAuthError("unsupported_response_type", "response_type must be code.")
    if "openid" not in form.get("scope", "").split():
        raise OAuthError("invalid_scope", "scope must contain openid.")
    if form.get("code_challenge_method") != "S256" or not form.get("code_challenge"):
        raise OAuthError("invalid_request", "PKCE is required: a code_challenge with code_challenge_method S256.")
    if form.get("prompt") == "none":
        raise OAuthError("login_required", "No user is signed in: each login needs a person.")


def authorization(form: Form, person: Person) -> codes.Authorization:
    return codes.Authorization(
        form["client_id"], form["redirect_uri"], form["code_challenge"], form.get("nonce", ""), person.subject
    )


def find_person(subject: str) -> Person:
    if subject not in PEOPLE:
        raise OAuthError("access_denied", "There is no such person.")
    return PEOPLE[subject]
