"""What goes with a payment to its provider, so that an order can be made anew from it alone.

Responsible for writing the terms of a payment into the provider's metadata and for reading them
back. Pure. A database that was lost is restored from a copy, and what was sold after that copy
exists at the provider only: money with an amount. With these few fields it is an order again.

Nothing personal goes along: no name, no address; the viewer is an id that means nothing outside.
The provider keeps up to 50 fields of 500 characters, so the lines (at most 20) are JSON in pieces.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from commerce.pricing import Adjustment
from commerce.stock import HeldLine

VERSION: Final = "1"
PIECE_CHARS: Final = 480
PIECES_MAX: Final = 40
TITLE_CHARS_MAX: Final = 120


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The terms of one payment. Times in milliseconds since 1970, amounts in minor units."""

    payment: str
    rid: str
    viewer: str
    show: str
    drop: str
    until_ms: int
    at: int
    lines: tuple[HeldLine, ...]
    steps: tuple[Adjustment, ...]
    shipping: int
    promise: Mapping[str, Any]
    """What the host was showing at the press: source, pinned, pinned_at, media_ms; or nothing."""

    @property
    def goods(self) -> int:
        """Price of the lines."""
        return sum(line.unit_amount * line.quantity for line in self.lines)


def write(one: Snapshot) -> dict[str, str]:
    """As the provider's metadata; `rid` and `payment` always fit, whatever else does not."""
    ids = {"rid": one.rid, "payment": one.payment}
    body = {
        "viewer": one.viewer,
        "show": one.show,
        "drop": one.drop,
        "until": one.until_ms,
        "at": one.at,
        "lines": [
            [line.sku, line.title[:TITLE_CHARS_MAX], line.quantity, line.unit_amount]
            for line in one.lines
        ],
        "steps": [
            [step.kind, step.title, step.amount, step.included, step.basis] for step in one.steps
        ],
        "shipping": one.shipping,
        "promise": dict(one.promise),
    }
    text = json.dumps(body, separators=(",", ":"))
    pieces = [text[start : start + PIECE_CHARS] for start in range(0, len(text), PIECE_CHARS)]
    if len(pieces) > PIECES_MAX:
        return ids
    return {**ids, "v": VERSION, **{f"terms_{n}": piece for n, piece in enumerate(pieces)}}


def read(metadata: Mapping[str, str]) -> Snapshot | None:
    """None for what was not written by `write`, or by a version that knew less."""
    if metadata.get("v") != VERSION:
        return None
    pieces = [metadata.get(f"terms_{n}", "") for n in range(PIECES_MAX)]
    try:
        body = json.loads("".join(pieces))
        return Snapshot(
            payment=metadata["payment"],
            rid=metadata["rid"],
            viewer=body["viewer"],
            show=body["show"],
            drop=body["drop"],
            until_ms=int(body["until"]),
            at=int(body["at"]),
            lines=_lines(body["lines"]),
            steps=tuple(Adjustment(*step) for step in body["steps"]),
            shipping=int(body["shipping"]),
            promise=body["promise"],
        )
    except (ValueError, KeyError, TypeError):
        return None


def _lines(rows: Sequence[Sequence[Any]]) -> tuple[HeldLine, ...]:
    return tuple(HeldLine(*row) for row in rows)
