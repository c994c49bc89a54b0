"""Terms in the record: the shop's tax and shipping, a drop's discount, and what a hold was given.

Responsible for reading and changing terms, and for writing the steps from goods to total once per
hold (`order_adjustment`), so that a second attempt to pay costs what the first one did. It must not
compute them (`pricing` does).

A drop's discount is fixed by the first reservation made in it: everybody in a drop has the same
terms, and a hold's terms are those that stood when it was made, without a copy per hold.
"""

from collections.abc import Sequence

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from commerce import coupons_sql
from commerce.database_sql import Database, upsert
from commerce.errors import CouponRefused, TermsFixed, UnknownDrop
from commerce.keep import Keep, keep_answer
from commerce.money_schema_sql import drop_discount, order_adjustment, shop_terms
from commerce.pricing import Adjustment, Discount, ShopTerms, Terms, adjust, total_of
from commerce.schema_sql import reservation, sale_drop, shop
from commerce.stock import Hold


async def steps_of(conn: AsyncConnection, rid: str) -> tuple[Adjustment, ...]:
    """The steps a hold was given; none yet if nobody has begun to pay."""
    wanted = (
        select(order_adjustment)
        .where(order_adjustment.c.rid == rid)
        .order_by(order_adjustment.c.position)
    )
    return tuple(
        Adjustment(row.kind, row.title, row.amount, row.included, row.basis)
        for row in (await conn.execute(wanted)).all()
    )


async def fix_steps(
    conn: AsyncConnection,
    hold: Hold,
    shipping: int,
    now: int,
    *,
    first: bool = True,
    coupon: str = "",
) -> tuple[Adjustment, ...]:
    """The steps of a hold, computed and written at the `first` attempt to pay, read afterwards.

    The coupon is the first attempt's. Raises CouponRefused, also for another one later.
    """
    known = await steps_of(conn, hold.rid)
    if known or not first:
        await same_coupon(conn, hold.rid, coupon)
        return known
    shop_wide = await _shop_terms(conn)
    terms = Terms(
        currency=hold.currency,
        shipping=shipping,
        discount=await discount_of(conn, hold.drop),
        coupon=await coupons_sql.take(conn, coupon, hold.rid, now) if coupon else None,
        tax_bp=shop_wide.tax_bp,
        tax_title=shop_wide.tax_title,
    )
    steps = adjust(hold.total, terms)
    await write_steps(conn, hold.rid, steps, now)
    return steps


async def same_coupon(conn: AsyncConnection, rid: str, coupon: str) -> None:
    """Raises CouponRefused if the terms of this hold were fixed without it."""
    if coupon and await coupons_sql.used_by(conn, rid) != coupon:
        raise CouponRefused("fixed")


async def steps_paid(
    conn: AsyncConnection, hold: Hold, amount: int, shipping: int, now: int
) -> tuple[Adjustment, ...]:
    """The steps that lead to the `amount` of a payment.

    A payment that was begun by the first released version has none: it knew shipping alone.
    """
    known = await steps_of(conn, hold.rid)
    if total_of(hold.total, known) == amount:
        return known
    steps = adjust(hold.total, Terms(hold.currency, shipping))
    if not known:
        await write_steps(conn, hold.rid, steps, now)
    return steps


async def write_steps(
    conn: AsyncConnection, rid: str, steps: Sequence[Adjustment], now: int
) -> None:
    """Once per hold."""
    rows = [
        {
            "rid": rid,
            "position": position,
            "kind": step.kind,
            "title": step.title,
            "amount": step.amount,
            "included": step.included,
            "basis": step.basis,
            "created_at": now,
        }
        for position, step in enumerate(steps)
    ]
    if rows:
        await conn.execute(insert(order_adjustment), rows)


async def discount_of(conn: AsyncConnection, drop: str) -> Discount | None:
    """What this drop takes off, if anything."""
    row = (await conn.execute(select(drop_discount).where(drop_discount.c.drop == drop))).first()
    return None if row is None else Discount(row.title, row.percent_bp, row.amount)


async def _shop_terms(conn: AsyncConnection) -> ShopTerms:
    row = (await conn.execute(select(shop_terms).where(shop_terms.c.id == 1))).first()
    return ShopTerms() if row is None else ShopTerms(row.tax_bp, row.tax_title, row.low_stock)


class SqlTerms:
    """The terms of one database. Methods raise Unavailable when it is away."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def shop(self) -> ShopTerms:
        """Tax and the threshold of low stock."""
        async with self._database.read() as conn:
            return await _shop_terms(conn)

    async def put_shop(self, terms: ShopTerms, keep: Keep[ShopTerms] | None = None) -> ShopTerms:
        """For payments begun from now on."""
        row = {
            "id": 1,
            "tax_bp": terms.tax_bp,
            "tax_title": terms.tax_title,
            "low_stock": terms.low_stock,
        }
        async with self._database.begin() as conn:
            await upsert(conn, shop_terms, row, key=("id",))
            return await keep_answer(keep, conn, terms)

    async def discount(self, drop: str) -> Discount | None:
        """Of one drop. Raises UnknownDrop."""
        async with self._database.read() as conn:
            await _known(conn, drop)
            return await discount_of(conn, drop)

    async def put_discount(
        self,
        drop: str,
        discount: Discount | None,
        now: int,
        keep: Keep[Discount | None] | None = None,
    ) -> Discount | None:
        """None takes it away. Raises UnknownDrop, TermsFixed (somebody has reserved already)."""
        async with self._database.begin() as conn:
            # A win locks the shop's row (its epoch) for reading, so none can slip in meanwhile.
            await conn.execute(select(shop.c.id).where(shop.c.id == 1).with_for_update())
            await _known(conn, drop)
            if await discount_of(conn, drop) == discount:
                return await keep_answer(keep, conn, discount)
            taken = select(reservation.c.rid).where(reservation.c.drop == drop).limit(1)
            if (await conn.execute(taken)).first() is not None:
                raise TermsFixed
            if discount is None:
                await conn.execute(delete(drop_discount).where(drop_discount.c.drop == drop))
            else:
                row = {
                    "drop": drop,
                    "title": discount.title,
                    "percent_bp": discount.percent_bp,
                    "amount": discount.amount,
                    "updated_at": now,
                }
                await upsert(conn, drop_discount, row, key=("drop",))
            return await keep_answer(keep, conn, discount)


async def _known(conn: AsyncConnection, drop: str) -> None:
    wanted = select(sale_drop.c.id).where(sale_drop.c.id == drop)
    if (await conn.execute(wanted)).first() is None:
        raise UnknownDrop(drop)
