from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from registry_project.devstack import issuer
from registry_project.devstack.issuer import keys
from registry_project.devstack.issuer.tokens import ACCESS_TOKEN_SECONDS, issue_token


class Command(BaseCommand):
    help = "Print an access token of the development issuer."
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--subject", required=True, help="the caller that the token is for (sub)")
        parser.add_argument("--group", action="append", default=[], dest="groups", help="a group of it; repeatable")
        parser.add_argument("--ttl", type=int, default=ACCESS_TOKEN_SECONDS, help="lifetime in seconds")
        parser.add_argument("--audience", default=settings.OIDC_AUDIENCE, help="aud; OIDC_AUDIENCE by default")

    def handle(self, *, subject: str, groups: list[str], ttl: int, audience: str, **_: Any) -> str:
        if urlsplit(settings.OIDC_ISSUER).path != issuer.PATH:
            raise CommandError(
                f"The registry accepts tokens of {settings.OIDC_ISSUER}; this command creates only those of the "
                "development issuer."
            )
        if not keys.location(settings.REGISTRY_DATA_DIR).exists():
            raise CommandError(f"The development issuer has not run with the data in {settings.REGISTRY_DATA_DIR} yet.")
        return issue_token(settings.REGISTRY_DATA_DIR, settings.OIDC_ISSUER, subject, groups, audience, ttl_seconds=ttl)
