"""What a client hears instead of an answer: a refusal, a lost connection, a deadline.

One set for WebSocket and HTTP, because the codes are the same. Responsible for nothing else: what
is a failure and what is an answer ("sold out") is for the drills to say.
"""

from collections.abc import Mapping


class Refused(Exception):
    """The server said no, with a documented code. Nothing changed."""

    def __init__(
        self,
        code: str,
        message: str = "",
        *,
        retry_after_ms: int | None = None,
        details: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(f"{code}: {message} {dict(details) if details else ''}".strip(": "))
        self.code = code
        self.retry_after_ms = retry_after_ms
        self.details = dict(details or {})


class ConnectionLost(Exception):
    """The connection ended before the answer came; `code` is the close code (1006: cut)."""

    def __init__(self, code: int) -> None:
        super().__init__(f"connection closed with {code}")
        self.code = code


class TooLate(Exception):
    """Something that should have happened did not, within its deadline; the text says what."""
