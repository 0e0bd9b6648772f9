"""Signed cursors: the position of a client in a list.

Clients send them back unchanged and cannot make one up.
"""

from typing import Any

from django.core.signing import BadSignature, Signer

from service_registry.exceptions import InvalidInput
from service_registry.json_text import dump_json_with_array
from service_registry.queries.catalogue import ListPosition, ServicePage

SIGNER = Signer(salt="service_registry.cursor")
CHANGE_SIGNER = Signer(salt="service_registry.cursor.change")


def encode(position: ListPosition) -> str:
    """Return the cursor for a position in the list of services."""
    return SIGNER.sign_object([position.index, position.namespace, position.name])


def decode(cursor: str | None) -> ListPosition | None:
    """Return the position in a cursor. Raises InvalidInput.

    Returns None for no cursor, which is the beginning.
    """
    if cursor is None:
        return None
    index, namespace, name = unsign(SIGNER, cursor)
    return ListPosition(index, namespace, name)


def list_body(page: ServicePage) -> bytes:
    """Return the body of the response that is a page of the list of services."""
    members = {"index": page.index, "next": encode(page.next) if page.next else None}
    return dump_json_with_array(members, "services", page.services).encode()


def encode_change(pk: int) -> str:
    """Return the cursor for a position in the history."""
    return CHANGE_SIGNER.sign_object([pk])


def decode_change(cursor: str | None) -> int | None:
    """Return the id of the change that a cursor names; None for no cursor.

    Raises InvalidInput.
    """
    if cursor is None:
        return None
    (pk,) = unsign(CHANGE_SIGNER, cursor)
    return int(pk)


def unsign(signer: Signer, cursor: str) -> list[Any]:
    try:
        return list(signer.unsign_object(cursor))
    except (BadSignature, ValueError) as error:
        raise InvalidInput.of_field("after", "cursor", "must be `next` of an earlier page") from error
