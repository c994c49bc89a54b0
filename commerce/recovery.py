"""After a restore: what was paid since the copy was made exists at the provider alone. Bring it in.

Responsible for walking through the provider's sessions and refunds since then and for what becomes
of each that this database does not know:

    nobody has paid yet     its page is ended: its hold is gone
    paid, units are there   reservation, payment, order and ledger are made anew
    paid, no unit is left   the money goes back by itself (or is let go, if it was only reserved)
    paid and given back     nothing is owed to anybody, nothing is made
    the same, in part       an order, if there are units, else the rest goes back by itself too
    refunds of what we know are counted, so that nobody is given the same money twice

It must not know SQL or the SDK. Every step may be repeated and may run on several nodes at once:
rows are written once, and the rest is `Settlement`'s usual way. What a copy cannot give back is an
address: the provider never had it, so the buyer of such an order has to be asked again.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from commerce import snapshot
from commerce.errors import Unavailable
from commerce.payments import Provider, ProviderRefused, Seen
from commerce.refunds import RefundState, SeenRefund, judge
from commerce.settlement import Settlement, derived_key

if TYPE_CHECKING:  # the record is chosen in live/trade.py
    from commerce.recovery_sql import SqlRecovery
    from commerce.refunding import Refunding

MARGIN_MS: Final = 3_600_000
"""Before the copy: clocks differ, and a transaction may have been open while it was made."""
SESSIONS_MAX: Final = 20_000
REFUNDS_MAX: Final = 20_000
PART: Final = 500
MONEYED: Final = ("succeeded", "requires_capture", "processing")

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Recovered:
    """What one walk did. `undecided`: payments and refunds that have to be looked at again."""

    sessions: int = 0
    ended: int = 0
    rebuilt: int = 0
    returned: int = 0
    """Payments that were back in part and have no unit: their rest was promised back."""
    refunds: int = 0
    without_terms: int = 0
    """Paid, and the provider does not know for what: `reconcile` lists it until a person has
    decided."""
    undecided: int = 0
    complete: bool = True


class Recovery:
    """`clock` in milliseconds."""

    def __init__(
        self,
        provider: Provider,
        record: "SqlRecovery",
        settlement: Settlement,
        refunding: "Refunding",
        *,
        clock: Callable[[], int],
        new_id: Callable[[], str],
    ) -> None:
        self._provider = provider
        self._record = record
        self._settlement = settlement
        self._refunding = refunding
        self._clock = clock
        self._new_id = new_id

    async def after_restore(self) -> Recovered | None:
        """If this database was restored and not reconciled since. Raises Unavailable."""
        since = await self._record.open_mark()
        if since is None:
            return None
        if not await self._record.is_a_shop():
            _log.error("the copy that was restored has no products: nothing is recovered from it")
            return None
        done = await self.run(since - MARGIN_MS)
        if done.complete and not done.undecided:
            await self._record.recovered(self._clock())
        return done

    async def run(self, since_ms: int) -> Recovered:
        """All sessions and refunds since then. Raises Unavailable."""
        done = Recovered()
        sessions = await self._provider.list_sessions(since_ms, SESSIONS_MAX)
        refunds = await self._provider.list_refunds(since_ms, REFUNDS_MAX)
        done.complete = len(sessions) < SESSIONS_MAX and len(refunds) < REFUNDS_MAX
        back: dict[str, list[SeenRefund]] = {}
        for one in refunds:
            if judge(one.status) is not RefundState.FAILED:
                back.setdefault(one.intent, []).append(one)
        ours = [seen for seen in sessions if seen.payment]
        for start in range(0, len(ours), PART):
            part = ours[start : start + PART]
            unknown = await self._record.unknown([seen.payment or "" for seen in part])
            for seen in part:
                if seen.payment in unknown:
                    await self._one(seen, back.get(seen.intent or "", []), done)
        await self._known_refunds(refunds, done)
        done.sessions = len(ours)
        _log.warning(
            "after a restore: %d sessions at the provider, %d orders made anew, %d pages ended, "
            "%d refunds counted, %d to look at",
            done.sessions, done.rebuilt, done.ended, done.refunds,
            done.undecided + done.without_terms,
        )  # fmt: skip
        return done

    async def _one(self, seen: Seen, back: Sequence[SeenRefund], done: Recovered) -> None:
        if seen.intent_status not in MONEYED:
            if seen.session_status == "open":
                await self._settlement.stray(seen)
                done.ended += 1
            return
        if seen.captured and sum(one.amount for one in back) >= seen.captured:
            return
        terms = snapshot.read(seen.about)
        if terms is None:
            _log.error("payment %s at the provider does not say what was bought", seen.payment)
            done.without_terms += 1
            return
        try:
            if back and not await self._record.in_stock(terms):
                _log.warning(
                    "payment %s is back in part and has no unit: the rest goes too", seen.payment
                )
                done.returned += await self._record.rebuild(
                    terms, seen, self._clock(), back=back, new_id=self._new_id()
                )
                return
            if seen.intent_status == "requires_capture" and await self._record.in_stock(terms):
                await self._capture(seen)
            if await self._record.rebuild(terms, seen, self._clock()):
                done.rebuilt += 1
            await self._settlement.advance(terms.payment)
        except Unavailable:
            done.undecided += 1

    async def _capture(self, seen: Seen) -> None:
        """It was reserved for an order that is lost: take it, as that order would have."""
        if seen.intent is None or seen.payment is None:
            return
        key = derived_key(seen.payment, "capture", 0)
        try:
            await self._provider.capture(seen.intent, seen.amount, seen.currency, key)
        except ProviderRefused as refused:
            _log.warning("capture of payment %s refused: %s", seen.payment, refused.code)

    async def _known_refunds(self, refunds: Sequence[SeenRefund], done: Recovered) -> None:
        for one in refunds:
            try:
                done.refunds += await self._refunding.count_lost(one)
            except Unavailable:
                done.undecided += 1
