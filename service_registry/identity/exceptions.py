"""Exceptions of token verification. Their texts repeat no part of a token."""


class TokenInvalid(Exception):
    """The token is refused; another attempt with it will be refused, too."""

    code = "token_invalid"

    def __init__(self, reason: str) -> None:
        super().__init__(f"The token is not accepted: {reason}.")


class KeysUnavailable(Exception):
    """No token can be verified: the issuer's keys are not loaded, or too old."""

    code = "unavailable"
    retry_after_seconds = 5

    def __init__(self) -> None:
        super().__init__("The signing keys of the token issuer are not loaded, or are too old; try again.")


class TooManyLogins(Exception):
    """The client has made too many login attempts, and may try again later."""

    code = "rate_limited"

    def __init__(self, retry_after_seconds: int) -> None:
        super().__init__(f"There were too many sign-in attempts. Please try again in {retry_after_seconds} s.")
        self.retry_after_seconds = retry_after_seconds
