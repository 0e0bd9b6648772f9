"""Where a walk stands, as a signed cursor that callers send back and need not understand; nobody makes one up."""

from typing import Any

from django.core.signing import BadSignature, Signer

from service_registry.exceptions import InvalidInput
from service_registry.json_text import dump_json_with_array
from service_registry.queries.catalogue import ListPosition, ServicePage

SIGNER = Signer(salt="service_registry.cursor")
CHANGE_SIGNER = Signer(salt="service_registry.cursor.change")


def encode(position: ListPosition) -> str:
    return SIGNER.sign_object([position.index, position.namespace, position.name])


def decode(cursor: str) -> ListPosition:
    """Raises InvalidInput for anything that `encode` has not made."""
    index, namespace, name = unsigned(SIGNER, cursor)
    return ListPosition(index, namespace, name)


def place_of(cursor: str | None) -> ListPosition | None:
    """Where the page begins that a query asks for; None at the beginning."""
    return None if cursor is None else decode(cursor)


def written(page: ServicePage) -> str:
    """The answer that a page of the list is."""
    members = {"index": page.index, "next": encode(page.next) if page.next else None}
    return dump_json_with_array(members, "services", page.services)


def encode_change(pk: int) -> str:
    return CHANGE_SIGNER.sign_object([pk])


def decode_change(cursor: str) -> int:
    """The id of the change where a walk over the history stands. Raises InvalidInput like `decode`."""
    (pk,) = unsigned(CHANGE_SIGNER, cursor)
    return int(pk)


def unsigned(signer: Signer, cursor: str) -> list[Any]:
    try:
        return list(signer.unsign_object(cursor))
    except (BadSignature, ValueError) as error:
        raise InvalidInput.of_field("after", "cursor", "must be `next` of an earlier page") from error
