"""Statements for tests of the database connection."""

from django.db import connection


def execute(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


def read_count(query: str) -> int:
    """Return the number in the only row of `query`."""
    with connection.cursor() as cursor:
        cursor.execute(query)
        (counted,) = cursor.fetchone()
    return int(counted)
