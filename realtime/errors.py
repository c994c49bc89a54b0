"""What can go wrong on a connection: codes a client may rely on, and when it should come back.

Responsible for the refusals that realtime itself makes and for the close codes with their one
reconnect rule. It must not know a product's reasons (sold out, show ended): those are raised by
the handler as `Rejected` with a code of its own.

The rule instead of a table per client (Centrifugo's idea): the *range* of a close code says
whether to reconnect. 4000 to 4499 reconnect with back-off, 4500 to 4999 do not, because the same
attempt would be refused again.

    RealtimeError
    ├── Rejected          the command is refused; the connection lives on
    └── BrokerUnavailable the broker did not answer; temporary
"""

from collections.abc import Mapping
from enum import IntEnum
from typing import Final

RECONNECT_CODES: Final = range(4000, 4500)

BAD_FRAME: Final = "bad_frame"
TOO_LARGE: Final = "too_large"
TOO_DEEP: Final = "too_deep"
UNKNOWN_COMMAND: Final = "unknown_command"
BAD_PARAMS: Final = "bad_params"
NOT_JOINED: Final = "not_joined"
ALREADY_JOINED: Final = "already_joined"
RATE_LIMITED: Final = "rate_limited"
BUSY: Final = "busy"
INTERNAL: Final = "internal"
UNAVAILABLE: Final = "unavailable"


class CloseCode(IntEnum):
    """Why the server ended a connection. Below 4500: reconnect; from 4500: do not."""

    DRAIN = 4000
    """This node is going away; come back as its `goodbye` said."""
    SLOW = 4001
    """The viewer did not read for longer than its budget. Counted; the end itself is an abort."""
    JOIN_TIMEOUT = 4002
    """No `join` within the deadline."""
    SILENT = 4003
    """Nothing arrived, not even a pong."""
    FLOOD = 4004
    """Far over the rate limit, again and again."""
    FULL = 4005
    """This node takes no more viewers."""
    FAILED = 4006
    """Our fault."""
    PROTOCOL = 4500
    """The client does not speak this protocol: text frames, or too many bad frames."""
    UNAUTHORIZED = 4501
    """The identity ended while connected. Reserved: tokens are checked at the join."""
    VERSION = 4502
    """No subprotocol that we speak was offered; reload the page."""

    @property
    def reconnect(self) -> bool:
        """Whether a client should try again by itself."""
        return self.value in RECONNECT_CODES


class RealtimeError(Exception):
    """Root of what this package raises."""


class BrokerUnavailable(RealtimeError):
    """The broker gave no answer in time; what was asked may or may not have happened."""


class Rejected(RealtimeError):
    """A command is refused with a stable code; nothing was changed unless the code says so.

    `message` is an English sentence for a person; `details` are the values in it, so that a page
    can say it in the viewer's own language. `retry_after_ms` is there where trying again can help.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        retry_after_ms: int | None = None,
        details: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.retry_after_ms = retry_after_ms
        self.details = dict(details or {})
