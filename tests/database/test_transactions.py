"""Limits of transactions."""

import pytest
from django.db import InternalError, connection

from service_registry.database.transactions import read_transaction


def show_statement_timeout() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SHOW statement_timeout")
        return str(cursor.fetchone()[0])


@pytest.mark.django_db(transaction=True)
def test_read_transaction_refuses_writes_and_limits_statements() -> None:
    with read_transaction(), connection.cursor() as cursor:
        assert show_statement_timeout() == "3s"
        with pytest.raises(InternalError, match="read-only"):
            cursor.execute("UPDATE service_registry_registrystate SET swept_at = now()")
    assert show_statement_timeout() == "0"
