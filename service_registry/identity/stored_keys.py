"""Store each issuer's last good key set in the database.

A process that starts while the issuer is down uses it. Both functions run in their own threads, and close the thread's
connection. A database failure is only logged: the one thing that fails without stored keys is a start while the issuer
is down.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection
from django.db.models import DurationField, ExpressionWrapper, F
from django.db.models.functions import Now

from service_registry.access_models import SigningKeys

logger = logging.getLogger(__name__)


@contextmanager
def thread_connection() -> Iterator[None]:
    try:
        yield
    except Exception:
        logger.warning("the stored keys could not be read or written", exc_info=True)
    finally:
        connection.close()


def load_keys(issuer: str) -> tuple[Any, float] | None:
    """Return the stored document and its age in seconds by the database's clock."""
    age = ExpressionWrapper(Now() - F("fetched_at"), DurationField())
    row = None
    with thread_connection():
        row = SigningKeys.objects.filter(issuer=issuer).values_list("document", age).first()
    return (row[0], max(0.0, row[1].total_seconds())) if row else None


def save_keys(issuer: str, document: dict[str, Any]) -> None:
    """Store a document that was just fetched.

    When two processes store theirs at the same time the later one remains; both are equally new.
    """
    with thread_connection():
        SigningKeys.objects.bulk_create(
            [SigningKeys(issuer=issuer, document=document)],
            update_conflicts=True,
            unique_fields=["issuer"],
            update_fields=["document", "fetched_at"],
        )
