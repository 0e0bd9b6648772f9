from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from registry_project.devstack.issuer import keys
from registry_project.devstack.issuer.tokens import ACCESS_TOKEN_SECONDS, issue_token


class Command(BaseCommand):
    help = "Print an access token of the development issuer."
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--subject", required=True, help="whom the token speaks for")
        parser.add_argument("--group", action="append", default=[], dest="groups", help="a group of theirs; repeatable")
        parser.add_argument("--ttl", type=int, default=ACCESS_TOKEN_SECONDS, help="seconds it is good for")
        parser.add_argument("--audience", default=settings.OIDC_AUDIENCE, help="what it is good for (OIDC_AUDIENCE)")

    def handle(self, *, subject: str, groups: list[str], ttl: int, audience: str, **_: Any) -> str:
        if urlsplit(settings.OIDC_ISSUER).path != settings.DEVELOPMENT_ISSUER_PATH:
            raise CommandError(
                f"Tokens come from {settings.OIDC_ISSUER}; this command makes those of the development issuer only."
            )
        if not keys.location(settings.REGISTRY_DATA_DIR).exists():
            raise CommandError(f"No development issuer has run with the data in {settings.REGISTRY_DATA_DIR} yet.")
        return issue_token(settings.REGISTRY_DATA_DIR, settings.OIDC_ISSUER, subject, groups, audience, ttl_seconds=ttl)
