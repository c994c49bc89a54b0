"""A gate in eighty lines of Python: what each numbered question must be answered.

The reference for the witness test. It knows no engine and shares no code with the scripts; it keeps
plain dictionaries and is asked one question after the other, in the order of the gate's own log.
"""

from collections import Counter
from dataclasses import dataclass, field

from commerce.claims import Claim, Kind
from commerce.hold_rule import Allowance, HoldRule
from commerce.stock import OPEN_HOLDS_MAX, Drop


@dataclass
class Won:
    viewer: str
    drop: str
    lines: tuple[tuple[str, int], ...]
    over: bool = False


@dataclass
class GateModel:
    """State of a gate that was loaded with `units`; `answer` moves it on by one number."""

    drop: Drop
    units: Counter[str]
    rule: HoldRule
    caps: dict[str, int] = field(default_factory=dict)
    used: Counter[tuple[str, str]] = field(default_factory=Counter)
    open: Counter[str] = field(default_factory=Counter)
    lapses: dict[str, list[int]] = field(default_factory=dict)
    holds: dict[str, Won] = field(default_factory=dict)
    closed: bool = False

    def answer(self, claim: Claim) -> tuple[Kind, str, int]:
        """Verdict, SKU and number that this claim must have; events are carried out."""
        if claim.verdict in (Kind.FREED, Kind.LAPSED, Kind.SOLD, Kind.FORGOTTEN):
            return self._end(claim)
        if claim.verdict is Kind.ADJUSTED:
            self.units[claim.lines[0][0]] += claim.number
            return claim.verdict, "", claim.number
        if claim.verdict is Kind.CLOSED_DROP:
            self.closed = True
            return claim.verdict, "", 0
        refusal = self._refusal(claim)
        if refusal is not None:
            return refusal
        self.holds[claim.rid] = Won(claim.viewer, claim.drop, claim.lines)
        self.open[claim.viewer] += 1
        for sku, quantity in claim.lines:
            self._take(claim.viewer, sku, quantity)
        allowed = self._allowed(claim)
        return Kind.WON, "", 0 if allowed.until_ms is None else allowed.lapses

    def _allowed(self, claim: Claim) -> Allowance:
        return self.rule.allowance(self.lapses.get(claim.viewer, ()), claim.decided_at)

    def _refusal(self, claim: Claim) -> tuple[Kind, str, int] | None:
        if claim.drop != self.drop.id:
            return Kind.UNKNOWN_DROP, "", 0
        if self.closed:
            return Kind.CLOSED, "", 0
        skus = {line.sku for line in self.drop.lines}
        for sku, _quantity in claim.lines:
            if sku not in skus:
                return Kind.UNKNOWN_SKU, sku, 0
        for sku, quantity in claim.lines:
            left = min(self.units[sku], self.caps.get(sku, 10**9))
            if left < quantity:
                return Kind.SOLD_OUT, sku, max(left, 0)
        if self.open[claim.viewer] >= OPEN_HOLDS_MAX:
            return Kind.LIMIT, "", OPEN_HOLDS_MAX
        allowed = self._allowed(claim)
        if self.open[claim.viewer] >= allowed.holds:
            return Kind.LAPSED_LIMIT, "", allowed.holds
        limit = self.drop.per_viewer
        for sku, quantity in claim.lines:
            if limit is not None and self.used[claim.viewer, sku] + quantity > limit:
                return Kind.LIMIT, sku, limit
        return None

    def _take(self, viewer: str, sku: str, quantity: int) -> None:
        self.units[sku] -= quantity
        self.used[viewer, sku] += quantity
        if sku in self.caps:
            self.caps[sku] -= quantity

    def _end(self, claim: Claim) -> tuple[Kind, str, int]:
        hold = self.holds.get(claim.rid)
        if hold is None or hold.over or (hold.viewer, hold.lines) != (claim.viewer, claim.lines):
            return Kind.OTHER, "", 0
        hold.over = True
        self.open[hold.viewer] -= 1
        if claim.verdict is not Kind.SOLD:
            for sku, quantity in hold.lines:
                self._take(hold.viewer, sku, -quantity)
        if claim.verdict is Kind.LAPSED:
            self.lapses.setdefault(hold.viewer, []).append(claim.decided_at)
        return claim.verdict, "", 0
