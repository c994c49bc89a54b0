"""The vocabulary of the wire: params of each command and the values of each push, typed.

Chapters 3 and 4 of PROTOCOL.md as msgspec structs. Pure: decoding and limits only, no rules about
who may do what (`commands`) and no state. Unknown keys are ignored, so that an older server and a
newer page can meet; wrong types and values out of range are refused as `bad_params` with the
field.

Integers are limited to what JavaScript holds exactly; money is minor units with a currency; times
are milliseconds since 1970 (UTC) by the server's clock.
"""

import re
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta, Struct, field

from live.codes import refuse
from realtime.wire import INT_MAX

TEXT_CHARS_MAX: Final = 300
"""A comment. Whatnot and IVS allow 500; a phone shows 300 in six lines."""
ANNOUNCEMENT_CHARS_MAX: Final = 200
QUANTITY_MAX: Final = 99
LINES_MAX: Final = 20
DROP_LINES_MAX: Final = 50
LIKES_MAX: Final = 15
"""Likes in one command (TikTok sends at most 15 as one increment)."""
UNDECIDED_MAX: Final = 8
COUNTDOWN_S_MAX: Final = 600
HOLD_S_MIN: Final = 5
HOLD_S_MAX: Final = 86_400
ENTRY_S_MIN: Final = 5
ENTRY_S_MAX: Final = 3_600
DELTA_MAX: Final = 1_000_000

# `$` alone would let a line feed through at the end.
Id = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.:-]+$(?!\n)")]
"""Our ids, and ids that clients make."""
Rid = Annotated[str, Meta(min_length=16, max_length=64, pattern=r"^[A-Za-z0-9_-]+$(?!\n)")]
"""A press of Buy: made once by the client (UUIDv7 recommended), kept until it is decided."""
Sku = Annotated[str, Meta(min_length=1, max_length=64)]
Count = Annotated[int, Meta(ge=0, le=INT_MAX)]


class Params(Struct, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """Root of all command params."""


class Join(Params, frozen=True):
    """First command on a connection."""

    show: Id
    token: Annotated[str, Meta(max_length=4096)] | None = None
    position: tuple[Annotated[str, Meta(max_length=64)], Count, Count] | None = None
    """Where this viewer was: (epoch, control offset, chat offset)."""
    undecided: Annotated[list[Rid], Meta(max_length=UNDECIDED_MAX)] = field(default_factory=list)
    """Presses of Buy whose answer never came."""


class Ping(Params, frozen=True):
    """Asks for the server's clock."""


class Comment(Params, frozen=True):
    """Say something to the room."""

    text: Annotated[str, Meta(max_length=4 * TEXT_CHARS_MAX)]
    rid: Rid
    """Made by the client, so that a repeated comment is one comment."""


class Like(Params, frozen=True):
    """Likes since the last `like`."""

    n: Annotated[int, Meta(ge=1, le=LIKES_MAX)] = 1


class BuyLine(Struct, frozen=True, array_like=True):
    """[sku, quantity]"""

    sku: Sku
    quantity: int
    """Checked by hand, so that 0, -1 and 10^18 are told apart from a wrong type."""


class Buy(Params, frozen=True):
    """Press Buy: all lines or nothing."""

    rid: Rid
    drop: Id
    lines: Annotated[list[BuyLine], Meta(min_length=1, max_length=LINES_MAX)]
    retry: bool = False
    """The answer to an earlier attempt with this rid was lost."""
    total: Count | None = None
    """What the page showed, in minor units; refused as `price_changed` if it is not the price."""


class Cancel(Params, frozen=True):
    """Give a hold back."""

    rid: Rid


class Wait(Params, frozen=True):
    """Wait for units of a SKU that is sold out; the same `rid` again asks for the place in line."""

    rid: Rid
    """Becomes the rid of the hold when it is this viewer's turn."""
    drop: Id
    sku: Sku
    quantity: int = 1
    """Checked by hand, as in a line of `buy`."""


class StopWaiting(Params, frozen=True):
    """Wait no more."""

    rid: Rid


class Fenced(Params, frozen=True):
    """Every action of a host's console carries its place in the console's order."""

    fence: Count
    n: Annotated[int, Meta(ge=1, le=INT_MAX)]


class TakeConsole(Params, frozen=True):
    """Become the console of this show; `fence` is the one this console had before, if any."""

    fence: Count | None = None


class GoLive(Fenced, frozen=True):
    """Start, or resume from a pause."""


class Pause(Fenced, frozen=True):
    """Pause the show."""


class End(Fenced, frozen=True):
    """End the show; its sales close."""


class PinProduct(Fenced, frozen=True):
    """Show a product to all viewers."""

    product: Id


class UnpinProduct(Fenced, frozen=True):
    """Take the pinned product away."""


class Announce(Fenced, frozen=True):
    """A line above the chat; an empty one takes it away."""

    text: Annotated[str, Meta(max_length=4 * ANNOUNCEMENT_CHARS_MAX)]


class DropLine(Struct, frozen=True, kw_only=True):
    """One SKU of a drop and how many units of it this drop may sell (null: all there are)."""

    sku: Sku
    units: Annotated[int, Meta(ge=1, le=DELTA_MAX)] | None = None


class OpenDrop(Fenced, frozen=True):
    """Open a sale after a countdown."""

    lines: Annotated[list[DropLine], Meta(min_length=1, max_length=DROP_LINES_MAX)]
    title: Annotated[str, Meta(max_length=120)] = ""
    countdown_s: Annotated[int, Meta(ge=0, le=COUNTDOWN_S_MAX)] = 0
    open_s: Annotated[int, Meta(ge=1, le=86_400)] | None = None
    """Closes by itself so long after opening; null: when the host closes it."""
    hold_s: Annotated[int, Meta(ge=HOLD_S_MIN, le=HOLD_S_MAX)] = 180
    per_viewer: Annotated[int, Meta(ge=1, le=QUANTITY_MAX)] | None = None
    """Units of one SKU that one viewer may hold or buy in this drop."""
    entry_s: Annotated[int, Meta(ge=ENTRY_S_MIN, le=ENTRY_S_MAX)] | None = None
    """A raffle: entries for so long, then it is drawn. It has one line."""


class CloseDrop(Fenced, frozen=True):
    """Close a sale now; what is held stays held."""

    drop: Id


class AdjustStock(Fenced, frozen=True):
    """Add or take units."""

    sku: Sku
    delta: Annotated[int, Meta(ge=-DELTA_MAX, le=DELTA_MAX)]


class SetStock(Fenced, frozen=True):
    """Set the units on hand, if they are `expected`."""

    sku: Sku
    on_hand: Annotated[int, Meta(ge=0, le=DELTA_MAX)]
    expected: Count
    drain: bool = False
    """Below what is held: reached as holds end, instead of refused."""


class CancelDrain(Fenced, frozen=True):
    """What has not run down yet stays."""

    sku: Sku


class Retract(Fenced, frozen=True):
    """Take a comment away, for everybody and from the history."""

    comment: Count
    """Its chat offset."""


VIEWER_COMMANDS: Final[dict[str, type[Params]]] = {
    "join": Join,
    "ping": Ping,
    "comment": Comment,
    "like": Like,
    "buy": Buy,
    "cancel": Cancel,
    "wait": Wait,
    "stop_waiting": StopWaiting,
}
HOST_COMMANDS: Final[dict[str, type[Params]]] = {
    "take_console": TakeConsole,
    "go_live": GoLive,
    "pause": Pause,
    "end": End,
    "pin_product": PinProduct,
    "unpin_product": UnpinProduct,
    "announce": Announce,
    "open_drop": OpenDrop,
    "close_drop": CloseDrop,
    "adjust_stock": AdjustStock,
    "set_stock": SetStock,
    "cancel_drain": CancelDrain,
    "retract": Retract,
}

P = TypeVar("P", bound=Params)
_MISSING = re.compile(r"required field `([^`]+)`")
_PLACE = re.compile(r"at `\$\.?([A-Za-z0-9_.\[\]]*)`$")


def read(type_: type[P], params: dict[str, Any]) -> P:
    """Params checked against their type. Raises `Rejected` (bad_params) naming the field."""
    try:
        return msgspec.convert(params, type_, strict=True)
    except msgspec.ValidationError as wrong:
        raise refuse("bad_params", field=field_of(wrong)) from None
    except (RecursionError, OverflowError):
        raise refuse("bad_params", field="") from None


def field_of(wrong: msgspec.ValidationError) -> str:
    """Where it is wrong, such as `lines[0].sku`, out of msgspec's sentence; "" if it names none."""
    text = str(wrong)
    parts = [found[1] for found in (_PLACE.search(text), _MISSING.search(text)) if found]
    return ".".join(part for part in parts if part)
