"""The development stack of `make run` and `make demo`.

It starts PostgreSQL, an OIDC issuer, the web server, the worker and a checker, and supervises them.

It is a separate Django app with the command `dev_token`. Production does not install it, and neither
`registry_project.settings` nor `manage.py` imports it.
"""


class DevstackError(Exception):
    """`make run` cannot continue.

    The text is one sentence for the person at the terminal.
    """
