"""Database connections of threads that serve no request of Django's."""

from django.db import close_old_connections, reset_queries


def prepare_thread_connection() -> None:
    """Do what Django does at the start of a request: close a broken connection, and clear the DEBUG query log."""
    reset_queries()
    close_old_connections()
