"""psycopg keeps the conversion of a statement, however long the statement is."""

from django.db import connection
from psycopg._queries import _query2pg

from service_registry.database.base import prepared_cursor


def test_long_statement_is_converted_once(server: None) -> None:
    statement = f"SELECT %(number)s::int -- {'x' * 8000}"
    before = _query2pg.cache_info()
    for number in range(3):
        with prepared_cursor() as cursor:
            cursor.execute(statement, {"number": number})
            assert cursor.fetchone() == (number,)
    after = _query2pg.cache_info()
    assert (after.misses - before.misses, after.hits - before.hits) == (1, 2)
    connection.close()
