"""The rows of a confirmation page, signed into it: an action changes those, and no others."""

from collections.abc import Iterable, Sequence
from typing import Any

from django.core import signing
from django.db.models import QuerySet

from service_registry.models import Instance


def sign_rows(rows: Iterable[Any], purpose: str) -> str:
    """Return keys and versions of the rows, signed for one action of one user."""
    return signing.dumps([[row.pk, version_of(row)] for row in rows], salt=purpose, compress=True)


def read_rows(signed: str, purpose: str, queryset: QuerySet[Any]) -> tuple[Sequence[Any], int]:
    """Return the rows that are as they were shown, and the number of those that have changed or ended since.

    Raises signing.BadSignature for what `sign_rows` has not made for this purpose.
    """
    versions = dict(signing.loads(signed, salt=purpose))
    rows = [row for row in queryset.filter(pk__in=versions) if version_of(row) == versions[row.pk]]
    return rows, len(versions) - len(rows)


def version_of(row: Any) -> str:
    """Return what differs after another process has taken an instance's id, or an override was set anew."""
    return str(row.lease.epoch) if isinstance(row, Instance) else str(row.created_at)
