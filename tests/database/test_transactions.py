"""The limits of a transaction that writes."""

from django.db import connection, transaction

from service_registry.database.transactions import write_transaction

LIMITS = ("lock_timeout", "synchronous_commit", "statement_timeout", "idle_in_transaction_session_timeout")


def read_limits() -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT current_setting(name) FROM unnest(%s::text[]) WITH ORDINALITY AS l(name, n) ORDER BY n", [[*LIMITS]]
        )
        return [value for (value,) in cursor.fetchall()]


def test_limits_hold_in_the_transaction_alone(server: None) -> None:
    before = read_limits()
    with write_transaction(lock_timeout="250ms", synchronous_commit="off"):
        assert read_limits() == ["250ms", "off", "3500ms", "3s"]
    assert read_limits() == before
    with transaction.atomic():
        assert read_limits() == before
    connection.close()


def test_limits_hold_where_a_transaction_is_open_already(server: None) -> None:
    with transaction.atomic(), write_transaction(lock_timeout="1s"):
        assert read_limits() == ["1s", "on", "3500ms", "3s"]
    connection.close()
