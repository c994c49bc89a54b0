"""From goods to total to single units: nothing is lost in any division. Pure, no engine."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commerce import fulfilment, orders, refunds
from commerce.ledger import Account, Posting, Unbalanced, balanced, refund_promised, sale
from commerce.orders import OrderState, UnitState, derive
from commerce.pricing import (
    DISCOUNT,
    SHIPPING,
    TAX,
    Discount,
    Terms,
    adjust,
    charged_lines,
    refund_parts,
    share_out,
    sum_of,
    tax_of_part,
    total_of,
)
from commerce.stock import HeldLine

LINES = st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 9)), min_size=1, max_size=6).map(
    lambda found: tuple(
        HeldLine(f"S{n}", "", quantity, amount) for n, (amount, quantity) in enumerate(found)
    )
)
DISCOUNTS = st.none() | st.one_of(
    st.integers(0, 10_000).map(lambda bp: Discount("off", percent_bp=bp)),
    st.integers(0, 10**7).map(lambda amount: Discount("off", amount=amount)),
)


def subtotal(lines: tuple[HeldLine, ...]) -> int:
    return sum(line.unit_amount * line.quantity for line in lines)


@given(LINES, DISCOUNTS, DISCOUNTS, st.integers(0, 10**5), st.integers(0, 10_000))
def test_units_add_up_to_every_step_and_to_the_total(
    lines: tuple[HeldLine, ...],
    discount: Discount | None,
    coupon: Discount | None,
    shipping: int,
    tax_bp: int,
) -> None:
    steps = adjust(subtotal(lines), Terms("USD", shipping, discount, tax_bp, "VAT", coupon))
    units = share_out(lines, steps)
    total = total_of(subtotal(lines), steps)
    assert sum(unit.amount for unit in units) == total >= 0
    assert sum(unit.discount for unit in units) == -sum_of(steps, DISCOUNT)
    assert sum(unit.shipping for unit in units) == sum_of(steps, SHIPPING)
    assert sum(unit.tax for unit in units) == sum_of(steps, TAX)
    assert all(0 <= unit.tax <= unit.amount for unit in units)
    assert all(0 <= unit.discount <= unit.price for unit in units)
    charged = charged_lines(lines, steps)
    assert sum(line.unit_amount * line.quantity for line in charged) + shipping == total
    tax = sum_of(steps, TAX)
    goods = subtotal(lines)
    assert (
        balanced(
            [
                Posting(Account.PROVIDER, total),
                *sale(goods, -sum_of(steps, DISCOUNT), shipping, tax),
            ]
        )
        is not None
    )


@given(LINES, DISCOUNTS, st.integers(0, 10**5), st.integers(0, 10_000), st.data())
def test_giving_back_in_any_portions_ends_at_exactly_what_was_paid(
    lines: tuple[HeldLine, ...],
    discount: Discount | None,
    shipping: int,
    tax_bp: int,
    data: st.DataObject,
) -> None:
    steps = adjust(subtotal(lines), Terms("USD", shipping, discount, tax_bp, "VAT"))
    units = share_out(lines, steps)
    left, taxed = [unit.amount for unit in units], [0] * len(units)
    for _ in range(50):
        if not sum(left):
            break
        portion = data.draw(st.integers(1, sum(left)))
        for at, part in enumerate(refund_parts(left, portion)):
            unit = units[at]
            assert 0 <= part <= left[at]
            done = unit.amount - left[at]
            taxed[at] += tax_of_part(unit.tax, unit.amount, done, part)
            left[at] -= part
    else:
        return  # fifty small portions: the rest was checked as it went
    assert taxed == [unit.tax for unit in units]


def test_more_than_is_left_is_no_refund() -> None:
    for wrong in (0, -1, 11):
        with pytest.raises(ValueError, match="more than is left"):
            refund_parts([4, 6], wrong)


def test_a_coupon_is_off_what_the_sale_has_left() -> None:
    sale_off, coupon = Discount("Friday", amount=600), Discount("Hello", percent_bp=5_000)
    first, second = adjust(1_000, Terms("EUR", discount=sale_off, coupon=coupon))
    assert (first.amount, second.amount) == (-600, -200)
    assert second.basis == {"of": 400, "percent_bp": 5_000, "rounding": "half_up"}
    assert total_of(1_000, adjust(1_000, Terms("EUR", discount=sale_off, coupon=sale_off))) == 0


def test_steps_say_how_they_were_computed() -> None:
    terms = Terms("EUR", 500, Discount("Friday", percent_bp=1_050), 1_900, "VAT 19 %")
    discount, shipping, tax = adjust(2_999, terms)
    assert (discount.amount, discount.basis) == (
        -315,
        {"of": 2_999, "percent_bp": 1_050, "rounding": "half_up"},
    )
    assert (shipping.amount, shipping.included) == (500, False)
    assert (tax.amount, tax.included, tax.title) == (508, True, "VAT 19 %")
    assert tax.basis == {"of": 3_184, "rate_bp": 1_900, "rounding": "half_up"}


def test_an_entry_that_does_not_add_up_is_refused() -> None:
    with pytest.raises(Unbalanced):
        balanced([Posting(Account.SALES, -5), Posting(Account.PROVIDER, 4)])
    whole = refund_promised(100, 16, has_order=True)
    assert balanced(whole) == whole


TABLES = {
    "order": orders.MOVES,
    "unit": orders.UNIT_MOVES,
    "refund": refunds.MOVES,
    "return": fulfilment.RETURN_MOVES,
    "shipment": fulfilment.SHIPMENT_MOVES,
    "dispute": refunds.DISPUTE_MOVES,
}


@pytest.mark.parametrize("name", TABLES)
def test_every_state_has_its_row_and_no_state_leads_to_itself(name: str) -> None:
    table: dict[object, frozenset[object]] = dict(TABLES[name])  # type: ignore[arg-type]
    states = type(next(iter(table)))
    assert set(table) == set(states)  # type: ignore[call-overload]
    for state, targets in table.items():
        assert state not in targets
        assert targets <= set(table)


def test_what_an_order_is_derived_to_can_be_reached_by_its_table() -> None:
    """Whatever one allowed move of one unit changes, the order's table allows what follows."""
    for count in (1, 2, 3):
        for units in itertools.product(UnitState, repeat=count):
            for owed in (False, True):
                before = derive(units, captured=True, owed=owed)
                for at, unit in enumerate(units):
                    for to in orders.UNIT_MOVES[unit]:
                        after = derive(
                            [*units[:at], to, *units[at + 1 :]], captured=True, owed=True
                        )
                        if after is before:
                            continue
                        assert after in orders.MOVES[before], (units, to, before, after)
    assert derive([UnitState.SOLD], captured=False, owed=True) is OrderState.PLACED
    assert derive([UnitState.CANCELLED], captured=False, owed=False) is OrderState.CANCELLED
