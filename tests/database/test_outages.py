"""Classification of database errors."""

import pytest
from django.db import DatabaseError

from service_registry.database.outages import is_lost_connection, is_outage
from tests.database.statements import execute


@pytest.mark.parametrize(
    ("statement", "outage", "lost"),
    [
        ("SELECT * FROM not_there", True, False),
        ("SELECT not_there FROM service_registry_lease", True, False),
        ("SET TRANSACTION READ ONLY; DELETE FROM service_registry_change", True, True),
        ("SELECT 1 / 0", False, False),
        ("SELEC", False, False),
    ],
)
def test_error_of_a_statement_is_an_outage_where_a_repeat_can_succeed(
    server: None, statement: str, outage: bool, lost: bool
) -> None:
    with pytest.raises(DatabaseError) as caught:
        execute(statement)
    assert (is_outage(caught.value), is_lost_connection(caught.value)) == (outage, lost)
