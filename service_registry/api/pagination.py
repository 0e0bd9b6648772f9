"""Where a walk stands, as a signed cursor that callers send back and need not understand; nobody makes one up."""

from django.core.signing import BadSignature, Signer

from service_registry.catalogue import Position
from service_registry.exceptions import InvalidInput

SIGNER = Signer(salt="service_registry.cursor")


def encode(position: Position) -> str:
    return SIGNER.sign_object([position.index, position.namespace, position.name])


def decode(cursor: str) -> Position:
    """Raises InvalidInput for anything that `encode` has not made."""
    try:
        index, namespace, name = SIGNER.unsign_object(cursor)
    except (BadSignature, ValueError) as error:
        raise InvalidInput.of_field("after", "cursor", "must be `next` of an earlier page") from error
    return Position(index, namespace, name)
