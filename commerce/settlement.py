"""Bringing one payment forward: look at the provider, judge, commit, act, look again.

Responsible for the order of steps between the provider and the record. It must not know where the
wish to look came from (a webhook, the poller, a deadline, a person): every caller asks for the same
thing, `advance`, and it may be asked at any time, twice at once, after a crash at any line.

Why a loop and not a handler per event: handlers per event have to be right for every order of
events; a loop that fetches the truth and compares has to be right once. At most `STEPS_MAX` rounds,
then the poller takes over.
"""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

from commerce.crash_points import CrashHook, nothing
from commerce.payments import (
    PAYABLE,
    Meaning,
    Payment,
    PaymentState,
    Provider,
    ProviderRefused,
    Sale,
    Seen,
    judge,
)
from commerce.stock import HoldState

if TYPE_CHECKING:  # the record and the inbox are chosen in live/app.py
    from commerce.payments_sql import SqlPayments

STEPS_MAX: Final = 6
"""Rounds of look and act; the longest good way (open, sold, captured) takes three."""
CREATE_SETTLES_MS: Final = 60_000
"""A creation whose answer was lost has either happened by then or never will."""

Settle = Callable[[Sequence[str]], Awaitable[None]]

_NOTES: Final = {
    Meaning.OPEN: PaymentState.OPEN,
    Meaning.DECLINED: PaymentState.DECLINED,
    Meaning.REQUIRES_ACTION: PaymentState.REQUIRES_ACTION,
    Meaning.PROCESSING: PaymentState.PROCESSING,
}
SETTLED: Final = (PaymentState.CAPTURED, PaymentState.UNALLOCATED)
"""Nothing that the provider says about its page or its money moves such a payment any more."""
_SOLD: Final = (PaymentState.AUTHORISED, PaymentState.CAPTURING)
_log = logging.getLogger(__name__)


def derived_key(payment: str, action: str, attempt: int) -> str:
    """An idempotency key that is the same for the same attempt, in every process, after a crash."""
    return hashlib.sha256(f"{payment}\n{action}\n{attempt}".encode()).hexdigest()


class Settlement:
    """`settle` tells the gate of reservations that have just moved."""

    def __init__(
        self,
        provider: Provider,
        record: "SqlPayments",
        *,
        clock: Callable[[], int],
        new_id: Callable[[], str],
        settle: Settle,
        crash_point: CrashHook = nothing,
    ) -> None:
        self._provider = provider
        self._record = record
        self._clock = clock
        self._new_id = new_id
        self._settle = settle
        self._crash_point = crash_point
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def advance(self, id_: str) -> None:
        """Bring a payment as far as it goes now. Raises Unavailable: ask again later."""
        lock = self._locks.setdefault(id_, asyncio.Lock())
        async with lock:
            for _ in range(STEPS_MAX):
                known = await self._record.standing(id_)
                if known is None or not await self._round(*known):
                    return

    async def give_up(self, payment: Payment) -> None:
        """The provider has refused to make its page, so nobody can pay by it."""
        await self._bury(payment)

    async def stray(self, seen: Seen) -> None:
        """A session or intent that names our payment but is not the one we work with: end it."""
        await self._end(seen, f"stray {seen.session or seen.intent}", 0)

    async def _round(self, payment: Payment, hold: HoldState) -> bool:
        """One look and what follows from it; whether to look again."""
        if payment.state in SETTLED:
            return False
        seen = await self._look(payment)
        if seen is None:
            return await self._nothing_there(payment)
        meaning = judge(seen, payment.amount, payment.currency)
        if payment.state is PaymentState.CANCELLED:
            revived = meaning is not Meaning.DEAD
            return revived and await self._record.revive(payment.id, self._clock())
        if meaning is Meaning.DEAD:
            return await self._bury(payment)
        if payment.state is PaymentState.MISMATCH:
            return await self._let_go(payment, seen)
        if meaning is Meaning.MISMATCH:
            return await self._mismatch(payment, seen)
        if meaning in (Meaning.AUTHORISED, Meaning.CAPTURED):
            return await self._money(payment, seen, meaning)
        if payment.state is PaymentState.CANCEL_REQUESTED:
            return await self._let_go(payment, seen)
        if hold is HoldState.CLOSING:
            return await self._record.close(payment.id, payment.rid, self._clock())
        if meaning is Meaning.DECLINED and seen.session_status == "complete":
            return await self._end(seen, payment.id, payment.tries)  # the page takes no other card
        note = _NOTES[meaning]
        if note is not payment.state and payment.state in PAYABLE:
            await self._record.note(payment, note, self._clock())
        return False

    async def _look(self, payment: Payment) -> Seen | None:
        if payment.session is not None:
            return await self._provider.look(payment.session)
        made_by = payment.created_at + CREATE_SETTLES_MS
        seen = await self._provider.find_session(payment.id, payment.created_at, made_by)
        if seen is not None:
            await self._record.adopt(payment.id, seen, self._clock())
        return seen

    async def _nothing_there(self, payment: Payment) -> bool:
        """The provider has no session: it may still come, or it never was."""
        young = self._clock() - payment.created_at < CREATE_SETTLES_MS
        if payment.state is PaymentState.CANCELLED or (payment.session is None and young):
            return False
        if payment.state in _SOLD:
            _log.error("payment %s is not known to the provider any more", payment.id)
            return False  # another account or a lost sandbox: not a reason to undo a sale
        return await self._bury(payment)

    async def _bury(self, payment: Payment) -> bool:
        if payment.state in _SOLD:
            _log.error("payment %s died after its units were sold", payment.id)
        if await self._record.dead(payment, self._clock()):
            await self._settle([payment.rid])
        return False

    async def _mismatch(self, payment: Payment, seen: Seen) -> bool:
        if payment.state in _SOLD:
            _log.error("payment %s was captured with another amount", payment.id)
            return False
        _log.error("payment %s: the provider has another amount or currency", payment.id)
        return await self._record.mismatch(payment, seen, self._clock())

    async def _money(self, payment: Payment, seen: Seen, meaning: Meaning) -> bool:
        """The money is reserved or taken."""
        if payment.state not in _SOLD:
            sale = await self._record.authorise(payment, seen, self._new_id(), self._clock())
            if sale is Sale.SOLD:
                self._crash_point("sale:after_commit")
                await self._settle([payment.rid])
            if sale is Sale.UNSELLABLE:
                return await self._let_go(payment, seen)
            return True
        if meaning is Meaning.CAPTURED:
            await self._record.captured(payment, seen.captured, self._clock())
            return False
        return await self._capture(payment, seen)

    async def _capture(self, payment: Payment, seen: Seen) -> bool:
        if seen.intent is None:
            return False
        if payment.state is PaymentState.AUTHORISED:
            return await self._record.capturing(payment.id, self._clock())
        key = derived_key(payment.id, "capture", payment.tries)
        self._crash_point("capture:before_provider")
        try:
            seen = await self._provider.capture(seen.intent, payment.amount, payment.currency, key)
        except ProviderRefused as refused:
            _log.warning("capture of payment %s refused: %s", payment.id, refused.code)
            return False  # the next look says why: it was taken already, or let go
        self._crash_point("capture:after_provider")
        await self._record.captured(payment, seen.captured, self._clock())
        return False

    async def _let_go(self, payment: Payment, seen: Seen) -> bool:
        """It must not sell any more: end the page, or let the reserved money go."""
        if seen.intent_status == "succeeded":
            _log.error("payment %s took money for which there is no unit", payment.id)
            await self._record.unallocated(payment, seen, self._new_id(), self._clock())
            return False
        return await self._end(seen, payment.id, payment.tries)

    async def _end(self, seen: Seen, name: str, attempt: int) -> bool:
        """True: it was asked for, look again. False: not possible now."""
        try:
            if seen.session is not None and seen.session_status == "open":
                await self._provider.expire_session(
                    seen.session, derived_key(name, "expire", attempt)
                )
                self._crash_point("close:after_provider")
                return True
            if seen.intent is not None and seen.intent_status not in ("processing", "succeeded"):
                await self._provider.cancel(seen.intent, derived_key(name, "cancel", attempt))
                return True
        except ProviderRefused as refused:
            # The buyer was faster, or something else changed it: the next look decides. A refused
            # key would be refused again, so the next attempt (`tries`) uses another one.
            _log.info("ending payment %s was refused: %s", name, refused.code)
            return attempt == 0
        return False
