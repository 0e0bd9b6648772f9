"""The banner that `make run` prints when the registry is ready."""

import os
import shlex
import sys
from pathlib import Path

from registry_project import env
from registry_project.devstack.plan import Plan

EXAMPLE = '{"service_name": "payments", "instance_id": "payments-1", "host": "127.0.0.1", "port": 8080}'


def banner(plan: Plan) -> str:
    lines = [
        "",
        f"  API      {plan.url}/registry/services",
        f"  Docs     {plan.url}/registry/docs",
        f"  Admin    {plan.url}/admin/",
        f"  Issuer   {os.environ['OIDC_ISSUER']}",
        *(example(plan.url) if plan.issuer else ()),
        "",
        "  Press Ctrl-C to stop.",
        "",
    ]
    return "\n".join(lines)


def example(url: str) -> list[str]:
    """Show how to register an instance with a token of the development issuer."""
    token = token_command()
    return [
        f"  Token    {token}",
        "",
        "  Register an instance from another shell:",
        "",
        f"curl -sS {url}/registry/register \\",
        f'  -H "Authorization: Bearer $({token})" \\',
        "  -H 'Content-Type: application/json' \\",
        f"  -d '{EXAMPLE}'; echo",
    ]


def token_command() -> str:
    """Return the `dev_token` command for a shell in the current directory."""
    data_directory = os.environ.get("REGISTRY_DATA_DIR")
    prefix = f"REGISTRY_DATA_DIR={shlex.quote(data_directory)} " if data_directory else ""
    python, manage = shorten(Path(sys.executable)), shorten(env.BASE_DIR / "manage.py")
    options = "--subject you --group registry-services --group team-payments"
    return f"{prefix}{python} {manage} dev_token {options}"


def shorten(path: Path) -> str:
    """Return a path below the current directory as a relative one."""
    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))
