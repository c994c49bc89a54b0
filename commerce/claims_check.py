"""Is the order of claims consistent? A replay of the log, number by number.

Responsible for recomputing from the claims alone that nobody won what was not there, that nobody
was refused what was, and that the numbers and times are an order. Pure: claims come in as they were
kept, findings go out. It must not know the gate's code, or it would repeat its mistakes.

What is known at each number: an epoch begins with the units it was loaded with, wins take, releases
and changes of stock give or take. Where claims are missing (`Kind.LOST`, or a hole in the numbers)
the units are unknown from there on, until a "sold out" names them again; what cannot be judged for
that reason is not judged, and the report says how many numbers were missing.

Wait lists are replayed too: an offer takes units like a win, it goes to whom the list names first,
and nobody wins by a press while somebody waits. A list that was there when the epoch was loaded is
not known by name, so of it only the units are judged.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from commerce.claims import PRESSES, RECORD, Claim, Kind

FINDINGS_MAX: Final = 100
CLOCKS_MS: Final = 500
"""Nodes read the database's clock, each for itself; so far may two be apart."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that cannot be. `code` is stable; `text` an English sentence."""

    code: str
    epoch: int
    n: int
    text: str


@dataclass(slots=True)
class Report:
    """What a check found. `ok` speaks of what could be judged; `missing` numbers could not be."""

    epochs: int = 0
    claims: int = 0
    winners: int = 0
    refused: int = 0
    missing: int = 0
    announced: int = 0
    """Numbers that the record, deciding alone, gave to announcements of levels."""
    findings: list[Finding] = field(default_factory=list)
    more_findings: int = 0

    @property
    def ok(self) -> bool:
        """Nothing contradicts the order."""
        return not self.findings


class Check:
    """Feed it whole epochs in order, all drops; then read `report`."""

    def __init__(self) -> None:
        self.report = Report()
        self._epoch = -1
        self._begin(-1)

    def _begin(self, epoch: int) -> None:
        self._epoch = epoch
        self._n = 0
        self._newest = 0
        self._alone = False
        self._sure = False
        self._units: Counter[str] = Counter()
        self._caps: dict[tuple[str, str], int] = {}
        self._most: dict[tuple[str, str], int] = {}
        self._closed: set[str] = set()
        self._listed: set[tuple[str, str]] = set()
        self._waiting: dict[tuple[str, str], dict[str, int]] = {}
        self._seen: dict[int, str] = {}

    def feed(self, claim: Claim) -> None:
        """The next claim."""
        if claim.epoch != self._epoch:
            self._begin(claim.epoch)
            self.report.epochs += 1
        self._number(claim)
        self._time(claim)
        self.report.claims += claim.verdict in PRESSES
        _RULES.get(claim.verdict, _refused if claim.verdict in PRESSES else _nothing)(self, claim)

    def _found(self, code: str, claim: Claim, text: str) -> None:
        if len(self.report.findings) >= FINDINGS_MAX:
            self.report.more_findings += 1
            return
        self.report.findings.append(Finding(code, claim.epoch, claim.n, text))

    def _number(self, claim: Claim) -> None:
        if claim.verdict is Kind.LOADED:
            return
        if claim.n in self._seen:
            self._found("duplicate", claim, f"number {claim.n} was given twice")
            return
        if claim.n < self._n:
            self._found("order", claim, f"number {claim.n} comes after {self._n}")
        missing = claim.n - self._n - 1
        self._alone = self._alone or claim.node == RECORD
        if missing > 0:
            self._skip(missing)
        self._seen = {claim.n: claim.rid}
        self._n = max(self._n, claim.n)

    def _skip(self, missing: int) -> None:
        if self._alone and not self._units:
            self.report.announced += missing
            return
        self.report.missing += missing
        self._unsure()

    def _unsure(self) -> None:
        self._sure = False
        self._most.clear()

    def _list(self, drop: str, sku: str) -> dict[str, int] | None:
        """Who waits there, by rid with their places; None: it is not known."""
        if not self._sure or (drop, sku) in self._listed:
            return None
        return self._waiting.setdefault((drop, sku), {})

    def _time(self, claim: Claim) -> None:
        if claim.decided_at < self._newest - CLOCKS_MS:
            late = self._newest - claim.decided_at
            self._found("time", claim, f"was decided {late} ms before a lower number")
        if claim.pressed_at > claim.decided_at + CLOCKS_MS:
            self._found("time", claim, "was decided before it was pressed")
        self._newest = max(self._newest, claim.decided_at)

    def _available(self, drop: str, sku: str) -> int | None:
        """Units that can be taken; None: not known."""
        if self._sure and sku in self._units:
            cap = self._caps.get((drop, sku))
            return self._units[sku] if cap is None else min(self._units[sku], cap)
        return self._most.get((drop, sku))

    def _move(self, drop: str, sku: str, units: int) -> None:
        """Units come back (or go). What is at most there cannot be less certain by that."""
        if sku in self._units:
            self._units[sku] += units
        if (drop, sku) in self._caps:
            self._caps[drop, sku] += units
        for place in self._most:
            if place[1] == sku:
                self._most[place] += units

    def load(self, claim: Claim) -> None:
        """An epoch begins with known units."""
        self._sure = True
        self._units = Counter(dict(claim.lines))
        self._caps = dict(claim.caps)
        self._listed = set(claim.listed)

    def win(self, claim: Claim) -> None:
        """A press took units. They must have been there, and nobody have waited for them."""
        for sku, _quantity in claim.lines:
            if self._list(claim.drop, sku):
                self._found("overtaken", claim, f"won {sku} while somebody waited for it")
        self._take(claim)

    def offer(self, claim: Claim) -> None:
        """The first who waited got units that were there."""
        for sku, _quantity in claim.lines:
            waiting = self._list(claim.drop, sku)
            if waiting is not None and claim.rid not in waiting:
                self._found("overtaken", claim, f"was offered {sku} without waiting for it")
            elif waiting and waiting[claim.rid] != min(waiting.values()):
                self._found("overtaken", claim, f"was offered {sku} before it was their turn")
        self._take(claim)
        self.leave(claim)

    def _take(self, claim: Claim) -> None:
        self.report.winners += 1
        if claim.drop in self._closed:
            self._found("closed", claim, f"won in {claim.drop}, which was closed")
        for sku, quantity in claim.lines:
            available = self._available(claim.drop, sku)
            if available is not None and available < quantity:
                self._found(
                    "oversold",
                    claim,
                    f"won {quantity} of {sku} where {available} were left",
                )
            self._move(claim.drop, sku, -quantity)

    def sell_out(self, claim: Claim) -> None:
        """Too few must have been left, and as many as were told."""
        self.report.refused += 1
        asked = dict(claim.lines).get(claim.sku, 0)
        available = self._available(claim.drop, claim.sku) if self._sure else None
        kept = claim.number == 0 and self._list(claim.drop, claim.sku) != {}
        if available is not None and max(available, 0) != claim.number and not kept:
            text = f"was told that {claim.number} of {claim.sku} were left; it was {available}"
            self._found("refusal", claim, text)
        if claim.number >= asked:
            text = (
                f"asked for {asked} of {claim.sku} and was refused though {claim.number} were left"
            )
            self._found("refusal", claim, text)
        if not self._sure:
            self._most[claim.drop, claim.sku] = claim.number

    def give_back(self, claim: Claim) -> None:
        """A hold ended without being sold."""
        for sku, quantity in claim.lines:
            self._move(claim.drop, sku, quantity)

    def wait(self, claim: Claim) -> None:
        """From now on what is free of these may be kept for those who wait."""
        for sku, _quantity in claim.lines:
            waiting = self._list(claim.drop, sku)
            if waiting is not None:
                waiting[claim.rid] = claim.number

    def leave(self, claim: Claim) -> None:
        """Waits no more."""
        for sku, _quantity in claim.lines:
            waiting = self._list(claim.drop, sku)
            if waiting is not None:
                waiting.pop(claim.rid, None)

    def adjust(self, claim: Claim) -> None:
        """Stock was changed."""
        for sku, _one in claim.lines:
            if sku in self._units:
                self._units[sku] += claim.number
            for place in self._most:
                if place[1] == sku:
                    self._most[place] += max(claim.number, 0)

    def close_drop(self, claim: Claim) -> None:
        """Nobody may win there any more."""
        self._closed.add(claim.drop)

    def lose(self, claim: Claim) -> None:
        """Claims are missing here."""
        self.report.missing += claim.number
        self._n = claim.n + claim.number - 1
        self._unsure()

    def refuse(self, _claim: Claim) -> None:
        """A refusal that has nothing to do with units."""
        self.report.refused += 1


def _refused(check: Check, claim: Claim) -> None:
    check.refuse(claim)


def _nothing(_check: Check, _claim: Claim) -> None:
    """A sale changes what is held into what is sold: nothing to take or give."""


_RULES: Final[dict[Kind, Callable[[Check, Claim], None]]] = {
    Kind.LOADED: Check.load,
    Kind.WON: Check.win,
    Kind.OFFERED: Check.offer,
    Kind.WAITS: Check.wait,
    Kind.LEFT: Check.leave,
    Kind.PASSED: Check.leave,
    Kind.SOLD_OUT: Check.sell_out,
    Kind.FREED: Check.give_back,
    Kind.LAPSED: Check.give_back,
    Kind.FORGOTTEN: Check.give_back,
    Kind.ADJUSTED: Check.adjust,
    Kind.CLOSED_DROP: Check.close_drop,
    Kind.LOST: Check.lose,
}
