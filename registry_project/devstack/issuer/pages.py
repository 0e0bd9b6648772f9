"""The issuer's HTML pages: no scripts, no external resources, values escaped."""

from html import escape

from registry_project.devstack.issuer.people import PEOPLE, Person

CONTENT_SECURITY_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'"

# The parameters of an authorization request that the login page sends on.
PARAMETERS = (
    "response_type",
    "client_id",
    "redirect_uri",
    "scope",
    "state",
    "nonce",
    "code_challenge",
    "code_challenge_method",
)

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --line: #8884; --accent: #2b5fb3; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 26rem; margin: 12vh auto; padding: 0 1rem; }}
h1 {{ font-size: 1.3rem; margin: 0 0 .25rem; }}
p {{ margin: 0 0 1.25rem; opacity: .75; }}
button {{ display: block; width: 100%; text-align: left; font: inherit; color: inherit; cursor: pointer;
  background: none; border: 1px solid var(--line); border-radius: .5rem; padding: .7rem 1rem; margin: 0 0 .6rem; }}
button:hover, button:focus-visible {{ border-color: var(--accent); outline: 2px solid var(--accent); }}
small {{ display: block; opacity: .7; }}
</style>
</head>
<body>
<h1>{title}</h1>
{content}
</body>
</html>
"""


def message(title: str) -> str:
    return PAGE.format(title=escape(title), content="<p>Development issuer of the service registry.</p>")


def refusal(reason: str) -> str:
    return PAGE.format(title="This request is refused", content=f"<p>{escape(reason)}</p>")


def login(action: str, client_id: str, form: dict[str, str]) -> str:
    """Return the page on which the developer picks a person.

    `form` is the authorization request of the client.
    """
    hidden = "".join(
        f'<input type="hidden" name="{name}" value="{escape(form[name])}">' for name in PARAMETERS if name in form
    )
    people = "".join(button(person) for person in PEOPLE.values())
    content = (
        f"<p>Development issuer, no passwords. <strong>{escape(client_id)}</strong> asks who you are.</p>"
        f'<form method="post" action="{escape(action)}">{hidden}{people}</form>'
    )
    return PAGE.format(title="Sign in as", content=content)


def button(person: Person) -> str:
    groups = escape(", ".join(person.groups))
    return (
        f'<button name="subject" value="{escape(person.subject)}">{escape(person.name)}<small>{groups}</small></button>'
    )
