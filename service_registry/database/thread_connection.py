"""A thread's connection, for work that no request of Django's brings."""

from django.db import close_old_connections, reset_queries


def prepare_thread_connection() -> None:
    """As at the start of a request: a connection that broke is made anew, and with DEBUG on the statements that Django
    has kept are forgotten."""
    reset_queries()
    close_old_connections()
