"""A small shop for tests of stock: products by direct inserts, nodes, a clock set by hand, checks.

`Shop.check` holds the record against its invariants after whatever a test did, `Shop.check_gate`
waits until everything has been told and compares the gate with the record, number by number.
"""

import asyncio
import itertools
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy import func, insert, select

from commerce import stock_sql
from commerce.checkout import Checkout
from commerce.database_sql import Database
from commerce.outbox_sql import SqlOutbox
from commerce.record_sql import SqlRecord
from commerce.schema_sql import (
    outbox,
    product,
    reservation,
    reservation_line,
    sale_drop,
    sale_drop_line,
    shop,
    sku,
    sku_stock,
    stock_ledger,
    viewer_use,
)
from commerce.stock import Drop, DropLine, Hold, Level, Line, Press
from commerce.stock_redis import RedisGate
from commerce.waiting import Wait, Waiter, Waitlist
from commerce.waiting_sql import SqlWaitlist
from live.engines import find_valkey, socket_url, valkey_arguments
from realtime.caller_redis import Caller
from tests.waiting import until

START = 1_800_000_000_000
KEYS = "vitrine:{stock:shop}:"


class Clock:
    """Milliseconds, moved by hand."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> int:
        return self.now

    def advance(self, ms: int) -> None:
        self.now += ms


class Killed(Exception):
    """A node died at a named point."""


class Node:
    """One process, as far as stock is concerned."""

    def __init__(
        self, checkout: Checkout, waits: Waitlist, gate: RedisGate, record: SqlRecord
    ) -> None:
        self.checkout = checkout
        self.waits = waits
        self.gate = gate
        self.record = record
        self.levels: dict[str, Level] = {}
        self.task: asyncio.Task[None] | None = None

    @property
    def dead(self) -> bool:
        return self.task is not None and self.task.done()

    async def buy(self, rid: str, viewer: str, *lines: tuple[str, int], **more: object) -> Hold:
        """Press Buy in drop "d" (or `drop`)."""
        drop = str(more.pop("drop", "d"))
        parts = tuple(Line(name, quantity) for name, quantity in lines or (("A", 1),))
        return await self.checkout.reserve(Press(rid, viewer, drop, parts, **more))  # type: ignore[arg-type]

    async def wait(self, rid: str, viewer: str, name: str = "A", quantity: int = 1) -> Waiter:
        """Join the wait list of drop "d"."""
        return await self.waits.join(Wait(rid, viewer, "d", name, quantity))

    async def level(self, name: str) -> int:
        return (await self.checkout.levels([name]))[name].available


class Shop:
    """One shop on a database and a Valkey."""

    def __init__(self, database: Database, valkey_url: str) -> None:
        self.database = database
        self.valkey_url = valkey_url
        self.gate_url = valkey_url
        """Where nodes find the gate; differs on a cluster, where checks ask the slot's owner."""
        self.clock = Clock()
        self.outbox = SqlOutbox(database)
        self._refs = itertools.count()

    async def add_skus(self, units: Mapping[str, int], amount: int = 1_000) -> None:
        """One product per SKU, with so many units on hand."""
        async with self.database.begin() as conn:
            for position, (name, count) in enumerate(units.items()):
                await conn.execute(insert(product).values(**product_row(f"product-{name}")))
                await conn.execute(
                    insert(sku).values(
                        sku=name,
                        product=f"product-{name}",
                        position=position,
                        title="Small",
                        options={},
                        amount=amount,
                        currency="USD",
                        barcode="",
                        image_url="",
                        grams=0,
                        active=True,
                    )
                )
                row = {"on_hand": count, "held": 0, "committed": 0}
                await conn.execute(insert(sku_stock).values(sku=name, **row))
                deltas = {"d_on_hand": count, "d_held": 0, "d_committed": 0}
                await conn.execute(
                    insert(stock_ledger).values(
                        sku=name, kind="receive", ref=f"start-{name}", at=START, **deltas
                    )
                )

    def drop(self, *lines: tuple[str, int | None], **more: object) -> Drop:
        """A drop "d" that is open now, holds for 60 s, without a limit per viewer."""
        values: dict[str, object] = {
            "id": "d",
            "show": "show",
            "title": "Drop",
            "opens_at": self.clock(),
            "closes_at": None,
            "hold_s": 60,
            "per_viewer": None,
            "lines": tuple(DropLine(name, units) for name, units in lines),
        } | more
        return Drop(**values)  # type: ignore[arg-type]

    @asynccontextmanager
    async def node(
        self,
        *,
        crash_point: Callable[[str], None] = lambda _point: None,
        record: type[SqlRecord] = SqlRecord,
        clock: Callable[[], int] | None = None,
        running: bool = True,
        upkeep: bool = True,
        inflight_max: int = 1_024,
    ) -> AsyncIterator[Node]:
        """A node of this shop. A Killed out of `crash_point` ends it quietly.

        `upkeep=False`: presses are answered, but nothing happens behind them.
        """
        gate = RedisGate.connect(self.gate_url, line=Caller)
        kept = record(self.database, crash_point=crash_point)
        levels: dict[str, Level] = {}
        checkout = Checkout(
            gate,
            kept,
            self.outbox,
            clock=clock or self.clock,
            on_levels=levels.update,
            crash_point=crash_point,
            inflight_max=inflight_max,
        )
        waits = Waitlist(
            checkout.keeper,
            kept,
            SqlWaitlist(self.database, crash_point=crash_point),
            checkout.board,
            clock=clock or self.clock,
            crash_point=crash_point,
        )
        node = Node(checkout, waits, gate, kept)
        node.levels = levels
        if running:
            node.task = asyncio.create_task(_all(node) if upkeep else _presses_only(checkout))
        try:
            yield node
        finally:
            if node.task is not None:
                node.task.cancel()
                try:
                    await node.task
                except* (asyncio.CancelledError, Killed):
                    pass
            await gate.close()

    # What is so.

    async def rows(self) -> dict[str, tuple[int, int, int]]:
        """On hand, held, committed by SKU."""
        row = sku_stock.c
        async with self.database.read() as conn:
            found = await conn.execute(select(row.sku, row.on_hand, row.held, row.committed))
            return {name: (hand, held, sold) for name, hand, held, sold in found}

    async def states(self) -> dict[str, str]:
        """State by rid."""
        async with self.database.read() as conn:
            found = await conn.execute(select(reservation.c.rid, reservation.c.state))
            return dict(found.all())  # type: ignore[arg-type]

    async def check(self) -> None:
        """I1, I2, I8, I9 and the sums behind them, in one snapshot."""
        async with self.database.read() as conn:
            stock = {row.sku: row for row in await conn.execute(select(sku_stock))}
            ledger = {row.sku: row for row in await conn.execute(_ledger_sums())}
            parts = list(await conn.execute(_parts()))
            lines = list(await conn.execute(select(sale_drop_line)))
            used = list(await conn.execute(select(viewer_use)))
            limits = dict((await conn.execute(_limits())).all())
        held: dict[str, int] = {}
        sold: dict[str, int] = {}
        taken: dict[tuple[str, str], int] = {}
        units: dict[tuple[str, str, str], int] = {}
        for drop, viewer, state, name, quantity in parts:
            if state in ("expired", "cancelled"):
                continue
            sums = sold if state == "sold" else held
            sums[name] = sums.get(name, 0) + quantity
            taken[drop, name] = taken.get((drop, name), 0) + quantity
            units[drop, viewer, name] = units.get((drop, viewer, name), 0) + quantity
        for name, row in stock.items():
            assert 0 <= row.held + row.committed <= row.on_hand
            assert 0 <= row.draining <= row.held
            assert (row.held, row.committed) == (held.get(name, 0), sold.get(name, 0)), name
            entry = ledger[name]
            sums_of = (int(entry.on_hand), int(entry.held), int(entry.committed))
            assert sums_of == (row.on_hand, row.held, row.committed), name
        for line in lines:
            assert line.taken == taken.get((line.drop, line.sku), 0)
            assert line.units is None or line.taken <= line.units
        for row in used:
            assert row.units == units.get((row.drop, row.viewer, row.sku), 0)
            assert limits[row.drop] is None or row.units <= limits[row.drop]

    async def check_gate(self, node: Node) -> None:
        """I12: when all is told, the gate's numbers are the record's."""
        await until(lambda: self._quiet(node))
        await self.check()
        client = Redis.from_url(self.valkey_url, decode_responses=True)
        try:
            stock = await client.hgetall(KEYS + "stock")
            left = await client.hgetall(KEYS + "lines")
            used = await client.hgetall(KEYS + "used")
        finally:
            await client.aclose()
        async with self.database.read() as conn:
            rows = await stock_sql.stock_rows(conn, list(stock))
            for name, count in stock.items():
                assert int(count) == rows[name].available, name
            for line in await conn.execute(select(sale_drop_line)):
                told = left.get(f"{line.drop}\x1f{line.sku}")
                if told:
                    assert int(told) == line.units - line.taken
            in_record = {
                f"{row.drop}\x1f{row.viewer}\x1f{row.sku}": str(row.units)
                for row in await conn.execute(select(viewer_use).where(viewer_use.c.units > 0))
            }
        assert used.items() <= in_record.items()

    async def _quiet(self, node: Node) -> bool:
        """Nothing untold, nothing provisional, gate and record of one epoch."""
        async with self.database.read() as conn:
            wanted = select(func.count()).select_from(outbox).where(outbox.c.gate_at.is_(None))
            untold = (await conn.execute(wanted)).scalar()
            epoch = (await conn.execute(select(shop.c.gate_epoch))).scalar()
        client = Redis.from_url(self.valkey_url)
        try:
            waiting = await client.zcard(KEYS + "orphan") + await client.zcard(KEYS + "offered")
        except RedisError:
            return False
        finally:
            await client.aclose()
        return untold == 0 and waiting == 0 and node.checkout.keeper.epoch == epoch


async def _all(node: Node) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(node.checkout.run())
        group.create_task(node.waits.run())


async def _presses_only(checkout: Checkout) -> None:
    async with asyncio.TaskGroup() as group:
        for work in checkout.reserving.tasks:
            group.create_task(work())


def product_row(name: str) -> dict[str, object]:
    """A product with nothing about it."""
    return {
        "id": name,
        "handle": name,
        "title": name,
        "description_html": "",
        "vendor": "",
        "kind": "",
        "tags": [],
        "options": [],
        "published": True,
        "fingerprint": "",
        "created_at": START,
        "updated_at": START,
    }


def _ledger_sums() -> object:
    row = stock_ledger.c
    return select(
        row.sku,
        func.sum(row.d_on_hand).label("on_hand"),
        func.sum(row.d_held).label("held"),
        func.sum(row.d_committed).label("committed"),
    ).group_by(row.sku)


def _parts() -> object:
    head, line = reservation.c, reservation_line.c
    return select(head.drop, head.viewer, head.state, line.sku, line.quantity).join(
        reservation_line, line.rid == head.rid
    )


def _limits() -> object:
    return select(sale_drop.c.id, sale_drop.c.per_viewer)


class OwnValkey:
    """A Valkey that a test may kill, restart, flush and set back to an old copy of its data."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self._data = folder / "data"
        self._data.mkdir()
        self._socket = folder / "s"
        self.url = socket_url(self._socket)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.kill()

    async def start(self) -> None:
        """Starts it on whatever data there is and waits until it answers."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: ASYNC220 - it returns at once
                [str(find_valkey()), *valkey_arguments(self._socket, self._data)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        await until(self._answers)

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None
            self._socket.unlink(missing_ok=True)

    async def flush(self) -> None:
        client = Redis.from_url(self.url)
        await client.flushall()
        await client.aclose()

    def keep_copy(self) -> None:
        """Remembers the data as they are on disk now."""
        shutil.copytree(self._data, self.folder / "copy")

    def restore_copy(self) -> None:
        """Back to what was remembered; only while it is not running."""
        shutil.rmtree(self._data)
        shutil.copytree(self.folder / "copy", self._data)

    async def _answers(self) -> bool:
        client = Redis.from_url(self.url)
        try:
            return bool(await client.ping())
        except RedisError:
            return False
        finally:
            await client.aclose()
