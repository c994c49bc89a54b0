"""Paying for a hold: the use cases a viewer meets, and the workers that never let money get lost.

Responsible for `begin` (a hold becomes a page to pay at), `accept` (a webhook is stored) and `run`:

    inbox    events that were stored -> look at their payment
    closer   PAYING past its deadline, CLOSING by wish -> end the page first, release afterwards
    poller   payments that nobody has told us about for a while
    refunds  money that was promised back (`refunding`)
    listener the provider's own list of events, for webhooks that were lost

It must not know SQL, the SDK or the wire. Every worker may be killed at any line and run in several
processes at once: they meet in compare-and-set, leases and derived keys. A decline leaves the hold
PAYING, because the same page takes another card; it becomes HELD again when its page has ended with
time left, so that HELD always means "nobody can pay for this right now" and may expire by itself.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from commerce import snapshot
from commerce.crash_points import CrashHook, nothing
from commerce.errors import HoldEnded, Unavailable
from commerce.keep import Keep
from commerce.payments import (
    SHOWN,
    Delivery,
    Payment,
    PaymentPage,
    PaymentState,
    Provider,
    ProviderRefused,
    SessionRequest,
)
from commerce.pricing import charged_lines
from commerce.refunding import Refunding
from commerce.settlement import CREATE_SETTLES_MS, SETTLED, Settle, Settlement, derived_key
from commerce.stock import Hold

if TYPE_CHECKING:  # the record and the inbox are chosen in live/app.py
    from commerce.inbox_sql import Inbox, Waiting
    from commerce.payments_sql import SqlPayments

EXPIRES_AFTER_MS: Final = 45 * 60_000
"""Of the provider's page. Its own minimum is 30 minutes; we end it at the hold's deadline."""
EXPIRES_AFTER_MAX_MS: Final = 24 * 3_600_000 - 10 * 60_000
TICK_S: Final = 0.5
"""Pace of inbox, closer and poller when nothing wakes them."""
LISTEN_S: Final = 10.0
"""One request per process and ten seconds, however many payments are open."""
LISTEN_BACK_MS: Final = 15 * 60_000
LISTEN_BACK_FIRST_MS: Final = 3 * 86_400_000
"""At the start: what may have happened while we were down, as long as Stripe repeats webhooks."""
LISTEN_MAX: Final = 1_000
BATCH_MAX: Final = 50
KEY_REUSED: Final = "idempotency_error"
"""The provider's word for "this key came with other parameters"."""
PARALLEL_MAX: Final = 8
"""Requests to the provider at a time: a quarter of what Stripe allows in test mode."""
FAILURE_PAUSE_S: Final = 2.0
RETRY_AFTER_MS: Final = 1_000

_log = logging.getLogger(__name__)


class Pay:
    """One provider and one record. `settle` tells the gate of reservations that have moved."""

    def __init__(
        self,
        provider: Provider,
        record: "SqlPayments",
        inbox: "Inbox",
        *,
        clock: Callable[[], int],
        new_id: Callable[[], str],
        settle: Settle,
        refunding: Refunding | None = None,
        shipping_label: str = "Shipping",
        tick_s: float = TICK_S,
        listen_s: float = LISTEN_S,
        crash_point: CrashHook = nothing,
    ) -> None:
        self._provider = provider
        self._record = record
        self._inbox = inbox
        self._clock = clock
        self._new_id = new_id
        self._shipping_label = shipping_label
        self._tick_s = tick_s
        self._listen_s = listen_s
        self._crash_point = crash_point
        self._settlement = Settlement(
            provider, record, clock=clock, new_id=new_id, settle=settle, crash_point=crash_point
        )
        self._refunding = refunding
        self._listen_back_ms = LISTEN_BACK_FIRST_MS
        self._wake_inbox = asyncio.Event()
        self._slots = asyncio.Semaphore(PARALLEL_MAX)

    async def begin(
        self,
        viewer: str,
        rid: str,
        delivery: Delivery,
        *,
        return_url: str,
        coupon: str = "",
        keep: Keep[PaymentPage] | None = None,
    ) -> PaymentPage:
        """A page to pay this hold at. The same page as long as it can be used.

        The payment is committed before the provider is called, and the call can be repeated: after
        `Unavailable` the caller just begins again. `keep` (see `commerce.keep`) is called in the
        transaction that knows the page: the one that finds it, or the one that writes its address
        down. Who dies between the payment's row and that one has kept no answer, and who repeats
        gets the page of that very payment. `coupon` is the code of one, for the first page of a
        hold. Raises UnknownHold, HoldEnded, PaymentOpen, CouponRefused, BadCurrency, Unavailable.
        The buyer comes back to `return_url` with `payment=done` or
        `payment=back` and `rid` in its query.
        """
        for _ in range(2):
            payment, hold = await self._record.begin(
                viewer, rid, delivery, self._new_id(), self._clock(), keep, coupon=coupon
            )
            if payment.state is not PaymentState.CREATED:
                return payment.page(hold)
            if self._clock() - payment.created_at < CREATE_SETTLES_MS // 2:
                return await self._open(payment, hold, return_url, keep)
            # An old creation without an answer: find out what became of it, then start anew.
            await self._settlement.advance(payment.id)
        raise Unavailable(RETRY_AFTER_MS)

    async def _open(
        self, payment: Payment, hold: Hold, return_url: str, keep: Keep[PaymentPage] | None
    ) -> PaymentPage:
        promise = await self._record.promise(payment.rid)
        request = self._request(payment, hold, promise, return_url)
        self._crash_point("pay:before_provider")
        try:
            seen = await self._provider.create_session(request)
        except ProviderRefused as refused:
            if refused.code == KEY_REUSED:  # it exists, with another return URL
                return await self._opened_before(payment)
            _log.error("the provider refuses to open payment %s: %s", payment.id, refused.code)
            await self._settlement.give_up(payment)
            raise Unavailable(RETRY_AFTER_MS) from None
        except Unavailable:
            return await self._opened_before(payment)
        self._crash_point("pay:after_provider")
        page = replace(payment, url=seen.url).page(hold)
        if await self._record.opened(payment.id, seen, page, self._clock(), keep):
            return page
        known = await self._record.find(payment.id)
        if known is not None and known[0].session == seen.session and known[0].url:
            return known[0].page(hold)  # a double click: the other one was faster
        await self._settlement.stray(seen)
        raise HoldEnded(hold.state.value if known is None else known[1].state.value)

    async def _opened_before(self, payment: Payment) -> PaymentPage:
        """No answer, or not a usable one; but the page may exist. Raises Unavailable if not."""
        await self._settlement.advance(payment.id)
        known = await self._record.find(payment.id)
        if known is None or known[0].state not in SHOWN:
            raise Unavailable(RETRY_AFTER_MS)
        return known[0].page(known[1])

    def _request(
        self, payment: Payment, hold: Hold, promise: Mapping[str, Any], return_url: str
    ) -> SessionRequest:
        """Follows from the row alone: a repetition under the same key is the same request."""
        after = min(max(EXPIRES_AFTER_MS, hold.until_ms - payment.created_at), EXPIRES_AFTER_MAX_MS)
        return SessionRequest(
            key=derived_key(payment.id, "create", 0),
            payment=payment.id,
            rid=payment.rid,
            lines=charged_lines(hold.lines, payment.steps),
            shipping=payment.shipping,
            shipping_label=self._shipping_label,
            amount=payment.amount,
            currency=payment.currency,
            expires_at_ms=payment.created_at + after,
            success_url=_with_query(return_url, payment="done", rid=payment.rid),
            cancel_url=_with_query(return_url, payment="back", rid=payment.rid),
            about=snapshot.write(
                snapshot.Snapshot(
                    payment=payment.id,
                    rid=payment.rid,
                    viewer=hold.viewer,
                    show=hold.show,
                    drop=hold.drop,
                    until_ms=hold.until_ms,
                    at=payment.created_at,
                    lines=hold.lines,
                    steps=payment.steps,
                    shipping=payment.shipping,
                    promise=promise,
                )
            ),
        )

    async def accept(self, raw: bytes, signature: str) -> None:
        """A webhook: raises BadSignature, or returns when the event is committed (answer 200)."""
        event = self._provider.verify(raw, signature, self._clock())
        await self._inbox.receive([event], self._clock())
        self._crash_point("inbox:after_commit")
        self._wake_inbox.set()

    async def refresh(self, rid: str) -> None:
        """The buyer came back from the page: look now instead of at the next tick. Never raises
        for a hold without payment. Raises Unavailable."""
        for payment in (await self._record.of_rid(rid))[:1]:
            await self._settlement.advance(payment.id)

    async def look_again(self, payment: str, intent: str) -> None:
        """Bring in whatever news there is of a payment and its refunds. Raises Unavailable."""
        await self._settlement.advance(payment)
        if self._refunding is not None:
            await self._refunding.heard_of(intent)

    async def run(self) -> None:
        """All workers, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._forever("inbox", self._inbox_tick, self._tick_s))
            group.create_task(self._forever("closer", self._closer_tick, self._tick_s))
            group.create_task(self._forever("poller", self._poller_tick, self._tick_s))
            if self._refunding is not None:
                group.create_task(self._forever("refunds", self._refunding.tick, self._tick_s))
            group.create_task(self._forever("listener", self._listener_tick, self._listen_s))

    async def once(self) -> None:
        """One round of every worker but the listener, for drills that want to be in step."""
        await self._inbox_tick()
        await self._closer_tick()
        await self._poller_tick()
        if self._refunding is not None:
            await self._refunding.tick()

    async def listen(self) -> int:
        """Ask the provider for its events and store the new ones; how many. Raises Unavailable."""
        now = self._clock()
        events = await self._provider.list_events(now - self._listen_back_ms, LISTEN_MAX)
        new = await self._inbox.receive(await self._inbox.unknown(events), now)
        self._listen_back_ms = LISTEN_BACK_MS
        if new:
            self._wake_inbox.set()
        return new

    # Workers

    async def _forever(
        self, name: str, work: Callable[[], Awaitable[bool]], every_s: float
    ) -> None:
        """Repeats `work` (True: there is more), whatever goes wrong in it."""
        while True:
            try:
                more = await work()
                pause = 0.0 if more else every_s
            except Unavailable:
                pause = FAILURE_PAUSE_S
            except Exception as wrong:  # noqa: BLE001 - a worker outlives every surprise
                _log.error("%s failed: %s", name, type(wrong).__name__)
                pause = FAILURE_PAUSE_S
            if name == "inbox":
                await self._wait_for_events(pause)
            else:
                await asyncio.sleep(pause)

    async def _wait_for_events(self, pause_s: float) -> None:
        try:
            async with asyncio.timeout(max(pause_s, 0.001)):
                await self._wake_inbox.wait()
        except TimeoutError:
            return

    async def _inbox_tick(self) -> bool:
        self._wake_inbox.clear()
        events = await self._inbox.claim(BATCH_MAX, self._clock())
        by_object: dict[str, list[Waiting]] = {}
        for event in events:
            by_object.setdefault(event.object_id, []).append(event)
        async with asyncio.TaskGroup() as group:
            for object_id, about in by_object.items():
                group.create_task(self._work_off(object_id, about))
        return len(events) == BATCH_MAX

    async def _work_off(self, object_id: str, events: Sequence["Waiting"]) -> None:
        async with self._slots:
            try:
                settled = await self._heard_of(object_id)
            except Unavailable:
                settled = False
            except Exception as wrong:  # noqa: BLE001 - one event must not stop the others
                _log.error("event about %s failed: %s", object_id, type(wrong).__name__)
                settled = False
        if settled:
            await self._inbox.done([event.id for event in events])
            return
        for event in events:
            if not await self._inbox.park(event, self._clock()):
                _log.error("event %s is given up: its payment is unknown here", event.id)

    async def _heard_of(self, object_id: str) -> bool:
        """Something happened to this object. False: it names a payment that we do not know."""
        if not object_id.startswith(("cs_", "pi_")):
            return self._refunding is None or await self._refunding.heard_of(object_id)
        ours = await self._record.by_object(object_id)
        if ours is not None:  # half of all events: what was heard already, said again
            if ours[1] not in SETTLED:
                await self._settlement.advance(ours[0])
            return True
        seen = await self._provider.look(object_id)
        if seen is None or seen.payment is None:
            return True  # not ours: the account may serve other shops
        known = await self._record.standing(seen.payment)
        if known is None:
            return False
        if known[0].state not in SETTLED:
            await self._settlement.advance(seen.payment)
            known = await self._record.standing(seen.payment)
        if known is not None and _is_stray(known[0], object_id):
            await self._settlement.stray(seen)
        return True

    async def _closer_tick(self) -> bool:
        due = await self._record.to_close(self._clock(), BATCH_MAX)
        for id_, rid in due:
            await self._record.close(id_, rid, self._clock())
        await self._advance_all([id_ for id_, _ in due])
        return len(due) == BATCH_MAX

    async def _poller_tick(self) -> bool:
        due = await self._record.due(self._clock(), BATCH_MAX)
        mine = [id_ for id_ in due if await self._record.claim(id_, self._clock())]
        await self._advance_all(mine)
        return len(due) == BATCH_MAX

    async def _advance_all(self, ids: Sequence[str]) -> None:
        async with asyncio.TaskGroup() as group:
            for id_ in ids:
                group.create_task(self._advance_one(id_))

    async def _advance_one(self, id_: str) -> None:
        async with self._slots:
            try:
                await self._settlement.advance(id_)
            except Unavailable:
                return  # `next_at` says when to try again
            except Exception as wrong:  # noqa: BLE001 - one payment must not stop the others
                _log.error("payment %s failed: %s", id_, type(wrong).__name__)

    async def _listener_tick(self) -> bool:
        await self.listen()
        await self._inbox.prune(self._clock())
        return False


def _is_stray(payment: Payment, object_id: str) -> bool:
    if object_id.startswith("cs_"):
        return payment.session is not None and payment.session != object_id
    return payment.intent is not None and payment.intent != object_id


def _with_query(url: str, **values: str) -> str:
    parts = urlsplit(url)
    query = [*parse_qsl(parts.query, keep_blank_values=True), *values.items()]
    return urlunsplit(parts._replace(query=urlencode(query)))
