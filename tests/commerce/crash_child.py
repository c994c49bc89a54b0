"""The process that `test_crash_points` kills: a shop's whole day in a minute, in production code.

It is started once per run and forks for every order, because importing the program costs more than
the story does. A child lives through the same story whatever happened before it, as viewers, hosts
and providers repeat what was not answered; at the named crash point it sends itself SIGKILL. Its
clock is real time plus jumps that are kept in a file, so the next child goes on where it was.

    one line of JSON in: {"database", "valkey", "sandbox", "clock", "point"}   one out: exit code
"""

import asyncio
import hashlib
import hmac
import json
import os
import secrets
import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import func, select

from commerce.checkout import Checkout
from commerce.crash_points import POINTS
from commerce.database_sql import Database
from commerce.errors import CommerceError, HoldEnded, PaymentOpen, Temporary
from commerce.gate import ORPHAN_AFTER_MS, Ask, Fenced, GateUnavailable
from commerce.inbox_sql import Inbox
from commerce.outbox_sql import SqlOutbox
from commerce.pay import Pay
from commerce.payments import PaymentPage
from commerce.payments_sql import SqlPayments
from commerce.payments_stripe import StripeProvider
from commerce.people import ErasureList
from commerce.people_sql import SqlPeople
from commerce.record_sql import SqlRecord
from commerce.schema_sql import outbox, payment
from commerce.stock import Drop, DropLine, Hold, HoldState, Line, Press
from commerce.stock_redis import RedisGate
from commerce.vault import Vault
from commerce.waiting import Wait, Waitlist, WaitState
from commerce.waiting_sql import SqlWaitlist
from live.crash import CrashAt, crash_hook
from realtime.caller_redis import Caller
from tests.commerce.pay_support import DELIVERY, KEY, MASTER, RETURN_URL, SUCCEEDS, Api
from tests.waiting import until

SKU, UNITS, MORE = "A", 8, 2
LAST = "B"
"""A SKU of which there is one."""
HOLD_S = 60
SECRET = "whsec_test"
STORY_S = 120.0
"""Of one child, and of each wait in it: spent only where something is wrong."""
R = TypeVar("R")


class Clock:
    """Real time and the jumps made so far."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._ahead_ms = int(file.read_text()) if file.exists() else 0

    def __call__(self) -> int:
        return time.time_ns() // 1_000_000 + self._ahead_ms

    def jump_to(self, ahead_ms: int) -> None:
        """Not back, and only once."""
        self._ahead_ms = max(self._ahead_ms, ahead_ms)
        draft = self._file.with_suffix(".new")
        draft.write_text(str(self._ahead_ms))
        draft.rename(self._file)


class Day:
    """The story, over one set of adapters."""

    def __init__(self, order: dict[str, str], database: Database) -> None:
        self.clock = Clock(Path(order["clock"]))
        self.database = database
        named = [CrashAt(point, 1) for point in POINTS if point == order["point"]]
        hook = crash_hook(named[0] if named else None)
        self.gate = RedisGate.connect(order["valkey"], line=Caller)
        record = SqlRecord(database, crash_point=hook)
        self.checkout = Checkout(
            self.gate,
            record,
            SqlOutbox(database),
            clock=self.clock,
            on_levels=lambda _levels: None,
            crash_point=hook,
        )
        self.waits = Waitlist(
            self.checkout.keeper,
            record,
            SqlWaitlist(database, crash_point=hook),
            self.checkout.board,
            clock=self.clock,
            crash_point=hook,
        )
        erasures = Path(order["clock"]).with_name("erasures")
        people = SqlPeople(database, Vault([MASTER]), ErasureList(erasures))
        self.provider = StripeProvider(
            KEY, [SECRET], api_base=order["sandbox"], timeout_s=5.0, retries=0
        )
        self.api = Api(order["sandbox"])
        self.pay = Pay(
            self.provider,
            SqlPayments(database, "stripe", people),
            Inbox(database, "stripe"),
            clock=self.clock,
            new_id=lambda: secrets.token_hex(12),
            settle=self.checkout.settle,
            tick_s=0.02,
            listen_s=0.1,
            crash_point=hook,
        )

    async def live(self) -> None:
        await self.open()
        await self.cancelled()
        await self.waited()
        await self.paid()
        await self.page_left()
        await self.bought("lapsed")
        await self.ghost()
        self.clock.jump_to(ORPHAN_AFTER_MS + 1_000 + HOLD_S * 1_000)
        await until(self._quiet, STORY_S)

    async def open(self) -> None:
        await self.checkout.open_drop(
            Drop("d", "show", "Drop", 0, None, HOLD_S, None, (DropLine(SKU), DropLine(LAST)))
        )
        await self.checkout.adjust(SKU, MORE, ref="delivery")

    async def bought(self, rid: str, sku: str = SKU) -> Hold | None:
        """The hold, or None if it has ended meanwhile."""
        press = Press(rid, f"viewer-{rid}", "d", (Line(sku, 1),), retry=True)
        while True:
            try:
                return await self.checkout.reserve(press)
            except HoldEnded:
                return None
            except Temporary:
                await asyncio.sleep(0.01)

    async def cancelled(self) -> None:
        if await self.bought("cancelled"):
            await self.checkout.cancel("viewer-cancelled", "cancelled")

    async def waited(self) -> None:
        """Two wait for the last unit, one leaves, and the other is offered it and declines."""
        first = await self.bought("first", LAST)
        for rid in ("leaver", "next"):
            await self._repeated(
                lambda rid=rid: self.waits.join(Wait(rid, f"viewer-{rid}", "d", LAST, 1))
            )
        await self._repeated(lambda: self.waits.leave("viewer-leaver", "leaver"))
        if first is not None:
            await self._repeated(lambda: self.checkout.cancel("viewer-first", "first"))
        await until(self._is_offered, STORY_S)
        await self._repeated(lambda: self.checkout.cancel("viewer-next", "next"))

    async def _is_offered(self) -> bool:
        entry = await self._repeated(
            lambda: self.waits.join(Wait("next", "viewer-next", "d", LAST, 1))
        )
        return entry.state is WaitState.OFFERED

    async def _repeated(self, ask: Callable[[], Awaitable[R]]) -> R:
        """As a page does: the same again until it is answered."""
        while True:
            try:
                return await ask()
            except Temporary:
                await asyncio.sleep(0.01)

    async def page(self, rid: str) -> PaymentPage | None:
        hold = await self.bought(rid)
        while hold is not None and hold.state is not HoldState.SOLD:
            try:
                return await self.pay.begin(hold.viewer, rid, DELIVERY, return_url=RETURN_URL)
            except (HoldEnded, PaymentOpen):
                break
            except Temporary:
                await asyncio.sleep(0.01)
        return None

    async def paid(self) -> None:
        page = await self.page("paid")
        if page is not None:
            await self.api.press(page.url, card=SUCCEEDS)
        for event in await self.api.events("checkout.session.completed"):
            raw, at = json.dumps(event).encode(), self.clock() // 1000
            signed = hmac.new(SECRET.encode(), f"{at}.".encode() + raw, hashlib.sha256)
            await self.pay.accept(raw, f"t={at},v1={signed.hexdigest()}")
        await self.pay.refresh("paid")
        await until(self._is_captured, STORY_S)

    async def page_left(self) -> None:
        await self.page("left")

    async def ghost(self) -> None:
        """A win whose node died before the record heard of it."""
        ask = Ask("ghost", "mark", "viewer-ghost", "d", ((SKU, 1),))
        with suppress(GateUnavailable, CommerceError):
            await self.checkout.keeper.call(
                lambda epoch: self.gate.reserve(epoch, [ask], self.clock())
            )
        self.clock.jump_to(ORPHAN_AFTER_MS + 1_000)
        await until(self._no_orphans, STORY_S)

    async def _no_orphans(self) -> bool:
        """Nothing in the gate that the record has not heard of: neither wins nor offers."""
        try:
            numbers = await self.checkout.keeper.call(
                lambda epoch: self.gate.numbers(epoch, [], self.clock())
            )
        except (GateUnavailable, Fenced):
            return False
        return numbers.provisional == 0

    async def _is_captured(self) -> bool:
        async with self.database.read() as conn:
            wanted = select(payment.c.state).where(payment.c.rid == "paid")
            return "captured" in (await conn.execute(wanted)).scalars().all()

    async def _quiet(self) -> bool:
        open_ = [hold for who in ("lapsed", "left") for hold in await self._holds(who)]
        async with self.database.read() as conn:
            untold = select(func.count()).where(outbox.c.gate_at.is_(None))
            unsettled = select(func.count()).where(payment.c.next_at.is_not(None))
            waiting = [(await conn.execute(one)).scalar() for one in (untold, unsettled)]
        return not open_ and waiting == [0, 0] and await self._no_orphans()

    async def _holds(self, who: str) -> list[Hold]:
        return await self.checkout.open_holds(f"viewer-{who}")


async def live(order: dict[str, str]) -> None:
    """One child's life, unless it ends earlier."""
    database = await Database.open(order["database"], poolsize=6)
    day = Day(order, database)
    work = [asyncio.create_task(run()) for run in (day.checkout.run, day.waits.run, day.pay.run)]
    async with asyncio.timeout(STORY_S):
        await day.live()
    for task in work:
        task.cancel()
    await asyncio.gather(*work, return_exceptions=True)
    await day.api.http.aclose()
    await day.provider.close()
    await day.gate.close()
    await database.close()


def main() -> None:
    """Forks until standard input closes."""
    for line in sys.stdin:
        order: dict[str, Any] = json.loads(line)
        pid = os.fork()
        if not pid:
            code = 1
            try:
                asyncio.run(live(order))
                code = 0
            except BaseException:  # noqa: BLE001 - how it ended is printed
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        _pid, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
