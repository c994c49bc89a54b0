"""The gate's log against the rules of a list: its own story, number by number.

Responsible for what only the order of the gate's decisions can show: nobody wins what somebody
waits for, a list is served in its order and in the same step as its units come free, and no level
is above zero while somebody waits. It must not know the record, except for who waits at which
place for how much; and `claims_check` replays the units of the same log.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Final, NamedTuple

from commerce.claims import Claim, Kind, Logged
from commerce.claims_check import Check

List = tuple[str, str]
"""A drop and a SKU."""
TAKES: Final = frozenset({Kind.WON, Kind.OFFERED})
RETURNS: Final = frozenset({Kind.FREED, Kind.LAPSED, Kind.FORGOTTEN})
GONE: Final = frozenset({Kind.OFFERED, Kind.PASSED, Kind.LEFT})
CLOCKS: Final = "time"
"""A finding about clocks, which this simulation turns."""


class Entry(NamedTuple):
    """Somebody's place in a list, and how many units they want."""

    turn: int
    quantity: int


def log_faults(
    log: Sequence[Logged],
    entries: Mapping[str, Entry],
    levels: Mapping[int, Mapping[str, int]],
    opens: Mapping[int, Mapping[str, int | None]],
) -> Iterator[tuple[str, str]]:
    """What is wrong in each epoch of which the log has the beginning.

    `levels`: what nodes heard, by version. `opens`: by epoch, when each drop opens for its gate
    (None: it waits for its draw, and the gate that is loaded after that serves its lists).
    """
    check = Check()
    for epoch, calls in groupby(log, key=lambda call: call.epoch):
        pieces = [sorted(call.claims, key=lambda claim: claim.n) for call in calls]
        if not (pieces[0] and pieces[0][0].verdict is Kind.LOADED):
            continue
        story = _Story(pieces, entries, opens.get(epoch, {}))
        for piece in pieces:
            for claim in piece:
                check.feed(claim)
            yield from story.read(piece)
            if piece:
                yield from story.told(levels.get(epoch << 32 | piece[-1].n, {}))
    for finding in check.report.findings:
        if finding.code != CLOCKS:
            yield f"I26 {finding.code}", f"{finding.epoch}/{finding.n}: {finding.text}"


class _Story:
    """Lists and units of one epoch, as far as its log tells."""

    def __init__(
        self,
        pieces: Sequence[Sequence[Claim]],
        entries: Mapping[str, Entry],
        opens: Mapping[str, int | None],
    ) -> None:
        loaded = pieces[0][0]
        self._opens = opens
        self._entries = entries
        self._units = Counter(dict(loaded.lines))
        self._caps = dict(loaded.caps)
        self._unsure = loaded.listed
        """Lists that were there before: not all of their entries are told."""
        self._lists = _loaded_with(pieces)

    def read(self, piece: Sequence[Claim]) -> Iterator[tuple[str, str]]:
        """One call of a script."""
        came: set[str] = set()
        for claim in piece:
            for sku, quantity in claim.lines:
                yield from self._list(claim, sku)
                if self._move(claim, sku, quantity) > 0:
                    came.add(sku)
            if claim.verdict is Kind.CLOSED_DROP:
                for key in [key for key in self._lists if key[0] == claim.drop]:
                    del self._lists[key]
        for key, waiting in self._lists.items():
            if waiting and key[1] in came and key not in self._unsure and self._is_open(key, piece):
                head = min(self._entries[rid] for rid in waiting)
                if self._free(key) >= head.quantity:
                    yield "I22 served_at_once", f"{key}: {self._free(key)} for {head.quantity}"

    def _list(self, claim: Claim, sku: str) -> Iterator[tuple[str, str]]:
        waiting = self._lists[claim.drop, sku]
        if claim.verdict is Kind.WAITS:
            waiting.add(claim.rid)
        elif claim.verdict is Kind.WON and waiting:
            yield "I22 overtaken", f"{claim.rid} won {sku} before {sorted(waiting)}"
        elif claim.verdict in GONE:
            first = min(waiting, key=self._entries.__getitem__, default=claim.rid)
            if claim.verdict is not Kind.LEFT and first != claim.rid:
                yield "I22 in_order", f"{claim.rid} was served before {first}"
            waiting.discard(claim.rid)

    def _move(self, claim: Claim, sku: str, quantity: int) -> int:
        """Units that came by this claim; below zero: they went."""
        kind = claim.verdict
        if kind is Kind.ADJUSTED:
            self._units[sku] += claim.number
            return claim.number
        by = -quantity if kind in TAKES else quantity if kind in RETURNS else 0
        self._units[sku] += by
        if (claim.drop, sku) in self._caps:
            self._caps[claim.drop, sku] += by
        return by

    def _is_open(self, key: List, piece: Sequence[Claim]) -> bool:
        """As the caller's clock says; the gate has no other."""
        opens_at = self._opens.get(key[0])
        return opens_at is not None and opens_at <= piece[0].decided_at

    def _free(self, key: List) -> int:
        return min(self._units[key[1]], self._caps.get(key, self._units[key[1]]))

    def told(self, levels: Mapping[str, int]) -> Iterator[tuple[str, str]]:
        """What nodes heard of the levels at this number."""
        for (_drop, sku), waiting in self._lists.items():
            if waiting and levels.get(sku, 0) > 0:
                yield "I22 free_while_somebody_waits", f"{levels[sku]} of {sku}, {sorted(waiting)}"


def _loaded_with(pieces: Sequence[Sequence[Claim]]) -> defaultdict[List, set[str]]:
    """Who was on a list from the beginning: those who leave one that they never joined."""
    lists: defaultdict[List, set[str]] = defaultdict(set)
    known: set[str] = set()
    for piece in pieces:
        for claim in piece:
            if claim.verdict in GONE and claim.rid not in known:
                lists[claim.drop, claim.lines[0][0]].add(claim.rid)
            if claim.verdict in GONE or claim.verdict is Kind.WAITS:
                known.add(claim.rid)
    return lists
