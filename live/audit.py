"""The audit of a drop: who pressed when, who won, why not; and whether the order holds together.

Responsible for walking through all claims of a drop in pages, for the CSV that a host can open in a
spreadsheet, and for the check; HTTP (`api_claims`) and the command line use the same. It must not
know an engine: a drop with a million claims is read 500 at a time, so nothing here grows with it.
"""

import csv
import io
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Final, Protocol

from msgspec import Struct

from commerce.claims import ClaimBook, Kept, Kind, Place
from commerce.claims_check import Check, Report
from commerce.hold_rule import HoldRule

PAGE: Final = 500
CHECK_PAGE: Final = 2_000
LIMITED_MAX: Final = 200
CSV_COLUMNS: Final = (
    *("claim", "epoch", "n", "what", "became", "viewer", "press", "lines", "sku", "number"),
    *("pressed_at", "decided_at", "node"),
)
_EVENTS_OF_ALL: Final = frozenset({Kind.LOADED, Kind.ADJUSTED, Kind.LOST})
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


class Limited(Struct, frozen=True):
    """A viewer whose holds are shorter and fewer at the moment."""

    viewer: str
    lapses: int
    percent: int
    holds: int
    until_ms: int


class Drops(Protocol):
    """What the record says of a drop."""

    async def left(self, drop: str) -> object:
        """Units left by SKU, as a mapping. Raises UnknownDrop, Unavailable."""


class Audit:
    """Reading only. All raise Unavailable."""

    def __init__(
        self, book: ClaimBook, drops: Drops, rule: HoldRule, clock: Callable[[], int]
    ) -> None:
        self._book = book
        self._drops = drops
        self._clock = clock
        self.rule = rule

    async def own(self, viewer: str, rid: str) -> list[Kept]:
        """What was decided on a viewer's own press, oldest first; empty: nothing is known."""
        return await self._book.own(viewer, rid)

    async def flagged(self, drop: str) -> int:
        """Presses told "sold out" by a node's own flag: counted, without numbers."""
        return await self._book.flagged(drop)

    async def page(self, drop: str, after: Place, limit: int) -> tuple[list[Kept], Place | None]:
        """Claims of a drop after a place, and where to go on. Raises UnknownDrop."""
        skus = await self._skus(drop)
        span = await self._book.span(drop)
        if span is None:
            return [], None
        found = await self._book.page(span, after, limit, drop=drop)
        last = found[-1].claim if len(found) == limit else None
        return _of_drop(found, drop, skus), None if last is None else (last.epoch, last.n)

    async def walk(self, drop: str) -> AsyncIterator[list[Kept]]:
        """All of them, a page at a time. Raises UnknownDrop before the first page."""
        skus = await self._skus(drop)
        return self._pages(drop, skus)

    async def _pages(self, drop: str, skus: frozenset[str]) -> AsyncIterator[list[Kept]]:
        span, after = await self._book.span(drop), (-1, -1)
        while span is not None:
            found = await self._book.page(span, after, PAGE, drop=drop)
            yield _of_drop(found, drop, skus)
            if len(found) < PAGE:
                return
            after = (found[-1].claim.epoch, found[-1].claim.n)

    async def check(self, drop: str) -> Report:
        """Replays the epochs of a drop. Raises UnknownDrop."""
        await self._skus(drop)
        check, after = Check(), (-1, -1)
        span = await self._book.span(drop)
        while span is not None:
            found = await self._book.page(span, after, CHECK_PAGE)
            for kept in found:
                check.feed(kept.claim)
            if len(found) < CHECK_PAGE:
                break
            after = (found[-1].claim.epoch, found[-1].claim.n)
        return check.report

    async def csv(self, drop: str) -> AsyncIterator[bytes]:
        """The export, a page at a time. Raises UnknownDrop before the first byte."""
        return self._csv(drop, await self.walk(drop))

    async def _csv(self, drop: str, pages: AsyncIterator[list[Kept]]) -> AsyncIterator[bytes]:
        yield _lines([CSV_COLUMNS])
        async for page in pages:
            if page:
                yield _lines([_cells(kept) for kept in page])
        if flagged := await self.flagged(drop):
            words = f"and {flagged} more were told sold out by a node's flag"
            yield _lines([(words, "", "", "flagged", *[""] * 5, flagged, "", "", "")])

    async def limited(self) -> list[Limited]:
        """Viewers to whom the rule applies now, the most lapses first; at most LIMITED_MAX."""
        now = self._clock()
        found = []
        for viewer, times in (await self._book.lapses(now - self.rule.window_ms)).items():
            allowed = self.rule.allowance(times, now)
            if allowed.until_ms is not None:
                found.append(
                    Limited(
                        viewer, allowed.lapses, allowed.percent, allowed.holds, allowed.until_ms
                    )
                )
        return sorted(found, key=lambda row: (-row.lapses, row.viewer))[:LIMITED_MAX]

    async def _skus(self, drop: str) -> frozenset[str]:
        left = await self._drops.left(drop)
        assert isinstance(left, dict)
        return frozenset(left)


def human(epoch: int, n: int) -> str:
    """A claim's number as people read it to each other."""
    return f"{epoch}·{n:,}"


def moment(ms: int) -> str:
    """ISO 8601 in UTC with milliseconds; empty for 0."""
    if not ms:
        return ""
    at = datetime.fromtimestamp(ms / 1000, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _of_drop(found: list[Kept], drop: str, skus: frozenset[str]) -> list[Kept]:
    """Without changes of stock that have nothing to do with the drop."""
    return [
        kept
        for kept in found
        if kept.claim.drop == drop
        or kept.claim.verdict is Kind.LOST
        or (kept.claim.verdict in _EVENTS_OF_ALL and not skus.isdisjoint(dict(kept.claim.lines)))
    ]


def _cells(kept: Kept) -> tuple[object, ...]:
    claim = kept.claim
    return (
        human(claim.epoch, claim.n),
        claim.epoch,
        claim.n,
        claim.verdict.value,
        "" if kept.state is None else kept.state.value,
        claim.viewer,
        claim.rid,
        " ".join(f"{quantity}x{sku}" for sku, quantity in claim.lines),
        claim.sku,
        claim.number,
        moment(claim.pressed_at),
        moment(claim.decided_at),
        claim.node,
    )


def _lines(rows: list[tuple[object, ...]]) -> bytes:
    """CSV of RFC 4180. Text that a spreadsheet would take for a formula gets an apostrophe."""
    text = io.StringIO()
    writer = csv.writer(text)
    for row in rows:
        writer.writerow([_safe(cell) for cell in row])
    return text.getvalue().encode()


def _safe(cell: object) -> object:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell
