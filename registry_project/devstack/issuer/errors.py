"""What the issuer says no with."""

from http import HTTPStatus


class OAuthError(Exception):
    """A refusal in the words of RFC 6749, 5.2 (and 4.1.2.1): a code of theirs, and a sentence."""

    def __init__(self, code: str, description: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(description)
        self.code = code
        self.description = description
        self.status = status

    def as_dict(self) -> dict[str, str]:
        return {"error": self.code, "error_description": self.description}
