"""The development stack of `make run` and `make demo`.

It starts PostgreSQL, an OIDC issuer, the web server and the worker, and supervises them.

A Django app of its own, with the command `dev_token`. Production installs `registry_project.settings`, which does not
know it.
"""


class DevstackError(Exception):
    """`make run` cannot go on.

    The text is one sentence for the person at the terminal.
    """
