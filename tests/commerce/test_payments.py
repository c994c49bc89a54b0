"""The table of payment states and the judgement, without any engine."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commerce.payments import MOVES, PAYABLE, RANK, Meaning, PaymentState, Seen, judge

STATUSES = (
    "requires_payment_method",
    "requires_action",
    "processing",
    "requires_capture",
    "succeeded",
    "canceled",
    "new",
)
BACKWARDS = {
    (PaymentState.PROCESSING, PaymentState.DECLINED),
    (PaymentState.CANCELLED, PaymentState.CANCEL_REQUESTED),
    (PaymentState.AUTHORISED, PaymentState.CANCEL_REQUESTED),
    (PaymentState.UNALLOCATED, PaymentState.CAPTURED),
}


def seen(
    session: str | None, intent: str | None, *, amount: int = 500, currency: str = "USD"
) -> Seen:
    captured = amount if intent == "succeeded" else 0
    return Seen("p", "r", "cs", session, "pi", intent, amount, currency, captured, False, "")


def test_every_state_has_a_rank_and_no_move_goes_back_but_the_four_that_are_argued() -> None:
    assert set(RANK) == set(PaymentState)
    back = {
        (source, to)
        for to, sources in MOVES.items()
        for source in sources
        if RANK[source] > RANK[to]
    }
    assert back == BACKWARDS


def test_nothing_leads_out_of_captured_and_nothing_back_to_created() -> None:
    for to, sources in MOVES.items():
        assert PaymentState.CAPTURED not in sources, to
        assert PaymentState.UNALLOCATED not in sources or to is PaymentState.CAPTURED
    assert PaymentState.CREATED not in MOVES


def test_a_mismatch_never_sells_and_a_capture_follows_an_authorisation_only() -> None:
    assert MOVES[PaymentState.CAPTURING] == {PaymentState.AUTHORISED}
    assert MOVES[PaymentState.CAPTURED] == {
        PaymentState.AUTHORISED,
        PaymentState.CAPTURING,
        PaymentState.UNALLOCATED,
    }
    assert PaymentState.MISMATCH not in MOVES[PaymentState.AUTHORISED]
    assert set(PAYABLE) <= MOVES[PaymentState.AUTHORISED]


@pytest.mark.parametrize(
    ("session", "intent", "means"),
    [
        ("open", None, Meaning.OPEN),
        ("open", "requires_payment_method", Meaning.OPEN),
        ("open", "requires_action", Meaning.REQUIRES_ACTION),
        ("complete", "processing", Meaning.PROCESSING),
        ("expired", "processing", Meaning.PROCESSING),
        ("complete", "requires_capture", Meaning.AUTHORISED),
        ("expired", "requires_capture", Meaning.AUTHORISED),
        ("complete", "succeeded", Meaning.CAPTURED),
        (None, "succeeded", Meaning.CAPTURED),
        ("expired", None, Meaning.DEAD),
        ("expired", "requires_action", Meaning.DEAD),
        ("complete", "canceled", Meaning.DEAD),
        (None, "canceled", Meaning.DEAD),
        ("open", "canceled", Meaning.OPEN),  # it would make a new intent
        ("open", "something_new", Meaning.OPEN),
    ],
)
def test_what_the_provider_has_means(session: str | None, intent: str | None, means: str) -> None:
    assert judge(seen(session, intent), 500, "USD") is means


@given(
    session=st.sampled_from([None, "open", "complete", "expired", "new"]),
    intent=st.sampled_from([None, *STATUSES]),
    amount=st.integers(-1, 10**9),
    currency=st.sampled_from(["USD", "EUR", ""]),
)
def test_money_counts_only_with_the_exact_amount_and_currency(
    session: str | None, intent: str | None, amount: int, currency: str
) -> None:
    means = judge(seen(session, intent, amount=amount, currency=currency), 500, "USD")
    if means in (Meaning.AUTHORISED, Meaning.CAPTURED):
        assert (amount, currency) == (500, "USD")


def test_a_partly_taken_amount_is_a_mismatch() -> None:
    whole = seen("complete", "succeeded")
    part = Seen(*[*(getattr(whole, name) for name in Seen.__slots__)][:8], 499, False, "")
    assert judge(part, 500, "USD") is Meaning.MISMATCH


def test_every_way_through_the_table_ends() -> None:
    """From each state a final one can be reached, so no payment is stuck for ever."""
    final = {PaymentState.CAPTURED, PaymentState.UNALLOCATED}
    reaches = set(final) | {PaymentState.CANCELLED}
    for _ in PaymentState:
        for to, sources in itertools.chain(MOVES.items()):
            if to in reaches:
                reaches |= sources
    assert reaches == set(PaymentState)
