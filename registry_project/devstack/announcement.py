"""What `make run` prints when everything is ready."""

import os
import shlex
import sys
from pathlib import Path

from django.conf import settings

from registry_project.devstack import environment_file

EXAMPLE = '{"service_name": "payments", "instance_id": "payments-1", "host": "127.0.0.1", "port": 8080}'


def address() -> str:
    """The registry as somebody on this machine reaches it."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.REGISTRY_BIND, settings.REGISTRY_BIND)  # noqa: S104
    return f"http://[{host}]:{settings.REGISTRY_PORT}" if ":" in host else f"http://{host}:{settings.REGISTRY_PORT}"


def announcement(*, own_tokens: bool) -> str:
    """`own_tokens`: whether the issuer is ours, so that tokens can be made here."""
    here = address()
    lines = [
        "",
        f"  API      {here}/registry/services",
        f"  Docs     {here}/registry/docs",
        f"  Admin    {here}/admin/",
        f"  Issuer   {settings.OIDC_ISSUER}",
        *(with_own_tokens(here) if own_tokens else ()),
        "",
        "  Ctrl-C stops it.",
        "",
    ]
    return "\n".join(lines)


def with_own_tokens(here: str) -> list[str]:
    token = token_command()
    return [
        f"  Token    {token}",
        "",
        "  Register something from another shell:",
        "",
        f"curl -sS {here}/registry/register \\",
        f'  -H "Authorization: Bearer $({token})" \\',
        "  -H 'Content-Type: application/json' \\",
        f"  -d '{EXAMPLE}'; echo",
    ]


def token_command() -> str:
    """The command as it works from the directory in which `make run` was called."""
    chosen = os.environ.get("REGISTRY_DATA_DIR")
    prefix = f"REGISTRY_DATA_DIR={shlex.quote(chosen)} " if chosen else ""
    python, manage = near(Path(sys.executable)), near(environment_file.BASE_DIR / "manage.py")
    options = "--subject you --group registry-services --group team-payments"
    return f"{prefix}{python} {manage} dev_token {options}"


def near(path: Path) -> str:
    """The path from here where it lies below, as it is elsewhere."""
    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))
