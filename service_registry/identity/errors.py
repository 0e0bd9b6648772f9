"""Why a token was not taken."""


class TokenInvalid(Exception):
    """The token is refused, for good. The text says why and repeats nothing of the token."""

    code = "token_invalid"

    def __init__(self, reason: str) -> None:
        super().__init__(f"The token is not accepted: {reason}.")


class KeysUnavailable(Exception):
    """No token can be judged: the issuer's keys were never loaded, or are too old to be trusted."""

    code = "unavailable"
    retry_after_seconds = 5

    def __init__(self) -> None:
        super().__init__("The signing keys of the token issuer are not loaded, or are too old; try again.")
