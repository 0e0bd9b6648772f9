"""The last good key set of an issuer in the database, for a start while the issuer is down.

Called on threads of their own only: each call closes the thread's connection. A database that fails is logged and is
no error: without stored keys everything goes on but a start with the issuer down.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection
from django.db.models import DurationField, ExpressionWrapper, F
from django.db.models.functions import Now

from service_registry.models import SigningKeys

logger = logging.getLogger(__name__)


@contextmanager
def on_a_thread_of_its_own() -> Iterator[None]:
    try:
        yield
    except Exception:
        logger.warning("the stored keys could not be read or written", exc_info=True)
    finally:
        connection.close()


def load(issuer: str) -> tuple[Any, float] | None:
    """The stored document and its age in seconds by the database's clock; None when there is none to be had."""
    age = ExpressionWrapper(Now() - F("fetched_at"), DurationField())
    row = None
    with on_a_thread_of_its_own():
        row = SigningKeys.objects.filter(issuer=issuer).values_list("document", age).first()
    return (row[0], max(0.0, row[1].total_seconds())) if row else None


def save(issuer: str, document: dict[str, Any]) -> None:
    """Store `document` as fetched now. Of two processes that store at once the later stays; both were just fetched."""
    with on_a_thread_of_its_own():
        SigningKeys.objects.bulk_create(
            [SigningKeys(issuer=issuer, document=document)],
            update_conflicts=True,
            unique_fields=["issuer"],
            update_fields=["document", "fetched_at"],
        )
