"""Coupons in the record: codes that take something off so many orders, perhaps until an instant.

Responsible for the rows of `coupon` and `coupon_use`, and for the count between them: a use is
reserved in the transaction that fixes a hold's terms, becomes used in the one that sells the hold,
and is released in the one that ends it unpaid. It must not know prices (`pricing`) or payments.

Why reserved and not counted at the sale: between "this code is good" and the payment minutes pass,
and two buyers with the last use would both be charged less. One UPDATE with its condition decides,
and a CHECK stands behind it. What was reserved in time is honoured until its hold ends, whatever
becomes of the coupon meanwhile. Late money that buys its units anew (`money_sql`) pays what was
promised then; its use stays released, so that the count never passes the limit.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Row, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from commerce.database_sql import Database, insert_new
from commerce.errors import CouponRefused, TermsFixed
from commerce.keep import Keep, keep_answer
from commerce.money_schema_sql import coupon, coupon_use
from commerce.pricing import Coupon, Discount

COUPONS_MAX: Final = 1_000
"""In a list; a shop with more wants codes per person, which these are not."""
RESERVED: Final = "reserved"
USED: Final = "used"
RELEASED: Final = "released"


async def take(conn: AsyncConnection, code: str, rid: str, now: int) -> Discount:
    """Reserves one use for a hold, whose row is locked. Raises CouponRefused."""
    row = coupon.c
    in_time = or_(row.ends_at.is_(None), row.ends_at > now)
    taken = await conn.execute(
        update(coupon)
        .where(row.code == code, row.used < row.uses_max, in_time)
        .values(used=row.used + 1)
        .returning(row.title, row.percent_bp, row.amount)
    )
    found = taken.first()
    if found is None:
        raise CouponRefused(await _why(conn, code, now))
    await conn.execute(
        insert(coupon_use).values(rid=rid, coupon=code, state=RESERVED, created_at=now)
    )
    return Discount(found.title, found.percent_bp, found.amount)


async def used_by(conn: AsyncConnection, rid: str) -> str:
    """The code with which a hold's terms were fixed; "" if with none."""
    wanted = select(coupon_use.c.coupon).where(coupon_use.c.rid == rid)
    return str((await conn.execute(wanted)).scalar() or "")


async def settle(conn: AsyncConnection, rids: Sequence[str], *, sold: bool) -> None:
    """These holds have ended, and their rows are locked."""
    use = coupon_use.c
    moved = await conn.execute(
        update(coupon_use)
        .where(use.rid.in_(rids), use.state == RESERVED)
        .values(state=USED if sold else RELEASED)
        .returning(use.coupon)
    )
    back = Counter(moved.scalars())
    if sold:
        return
    for code, uses in sorted(back.items()):
        await conn.execute(
            update(coupon).where(coupon.c.code == code).values(used=coupon.c.used - uses)
        )


async def _why(conn: AsyncConnection, code: str, now: int) -> str:
    known = (await conn.execute(select(coupon).where(coupon.c.code == code))).first()
    if known is None:
        return "unknown"
    return "ended" if known.ends_at is not None and known.ends_at <= now else "used_up"


class SqlCoupons:
    """Those of one database. Methods raise Unavailable when it is away."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(self) -> list[Coupon]:
        """By code, at most `COUPONS_MAX`."""
        async with self._database.read() as conn:
            rows = await conn.execute(select(coupon).order_by(coupon.c.code).limit(COUPONS_MAX))
            return [_coupon(row) for row in rows.all()]

    async def put(self, wanted: Coupon, now: int, keep: Keep[Coupon] | None = None) -> Coupon:
        """Makes it or changes it for holds to come. Raises TermsFixed: more are used already."""
        values = {
            "title": wanted.discount.title,
            "percent_bp": wanted.discount.percent_bp,
            "amount": wanted.discount.amount,
            "uses_max": wanted.uses_max,
            "ends_at": wanted.ends_at,
            "updated_at": now,
        }
        row = coupon.c
        async with self._database.begin() as conn:
            fresh = {"code": wanted.code, "used": 0, **values}
            if not await insert_new(conn, coupon, fresh, key=("code",)):
                changed = await conn.execute(
                    update(coupon)
                    .where(row.code == wanted.code, row.used <= wanted.uses_max)
                    .values(**values)
                )
                if changed.rowcount != 1:
                    raise TermsFixed
            stored = (await conn.execute(select(coupon).where(row.code == wanted.code))).one()
            return await keep_answer(keep, conn, _coupon(stored))


def _coupon(row: Row[Any]) -> Coupon:
    return Coupon(
        row.code,
        Discount(row.title, row.percent_bp, row.amount),
        row.uses_max,
        row.ends_at,
        row.used,
    )
