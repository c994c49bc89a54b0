"""The money drill in short; and its judge, which must be able to find each kind of loss."""

import json
from typing import Any

import pytest

from loadtests.__main__ import main
from loadtests.money_truth import Bank, Ours, judge

GIVEN = {"A": 10}


def ours(**more: Any) -> Ours:
    """One order of two units, one of them shipped, 100 of 500 given back; and an abandoned hold."""
    rows: dict[str, list[dict[str, Any]]] = {
        "orders": [{"id": "o", "rid": "r", "state": "partly_shipped", "total": 500}],
        "payment": [
            {
                "id": "p", "rid": "r", "intent_id": "pi", "state": "captured", "captured": 500,
                "refunded": 100,
            }
        ],
        "refund": [{"id": "b", "payment": "p", "state": "succeeded", "amount": 100}],
        "dispute": [],
        "order_unit": [{"sku": "A", "state": "shipped"}, {"sku": "A", "state": "sold"}],
        "sku_stock": [{"sku": "A", "on_hand": 9, "held": 0, "committed": 1}],
    }  # fmt: skip
    for name, change in more.items():
        rows[name] = [{**row, **change} for row in rows[name]] if change else []
    return Ours(rows, balance=400)


def bank(**more: Any) -> Bank:
    intent = {
        "id": "pi",
        "status": "succeeded",
        "amount_received": 500,
        "metadata": {"rid": "r", "payment": "p"},
    }
    back = {
        "id": "re",
        "payment_intent": "pi",
        "status": "succeeded",
        "amount": 100,
        "metadata": {"refund": "b"},
    }
    return Bank(
        [{**intent, **more.get("intent", {})}, *more.get("intents", [])],
        [{**back, **more.get("refund", {})}, *more.get("refunds", [])],
        more.get("disputes", []),
    )


SECOND = {
    "id": "pi2",
    "status": "succeeded",
    "amount_received": 500,
    "metadata": {"rid": "r", "payment": "p2"},
}
TWICE = {
    "id": "re2",
    "payment_intent": "pi",
    "status": "succeeded",
    "amount": 100,
    "metadata": {"refund": "b"},
}


def found(one: Ours, theirs: Bank, **memory: Any) -> dict[str, Any]:
    verdict = judge(one, theirs, GIVEN, memory.get("paid", {}), memory.get("told", {}))
    return verdict.summary()


def test_what_is_in_order_is_found_in_order() -> None:
    summary = found(ours(), bank(), paid={"r": "o"}, told={"o": {"b"}})
    assert summary["violations"] == []
    assert summary["provider_balance_equals_ours"]


@pytest.mark.parametrize(
    ("one", "theirs", "kind"),
    [
        (ours(payment=None, orders=None, refund=None), bank(), "lost_paid"),
        (ours(orders=None), bank(), "lost_paid"),
        (ours(payment={"state": "cancelled"}), bank(), "lost_paid"),
        (ours(payment={"captured": 499}), bank(), "lost_paid"),
        (ours(), bank(intent={"status": "requires_capture"}), "lost_paid"),
        (ours(), bank(intent={"status": "canceled"}), "lost_paid"),
        (ours(), bank(intents=[SECOND]), "double_charges"),
        (ours(), bank(refunds=[TWICE]), "double_refunds"),
        (ours(refund=None), bank(), "double_refunds"),
        (ours(refund={"amount": 99}), bank(), "double_refunds"),
        (ours(refund={"state": "rejected"}), bank(), "double_refunds"),
        (ours(), bank(refund={"status": "failed"}), "double_refunds"),
        (ours(payment={"refunded": 0}), bank(), "double_refunds"),
        (ours(sku_stock={"on_hand": 10}), bank(), "units_unexplained"),
        (ours(sku_stock={"held": 1}), bank(), "units_unexplained"),
        (ours(order_unit={"state": "sold"}), bank(), "units_unexplained"),
    ],
)
def test_each_loss_is_found(one: Ours, theirs: Bank, kind: str) -> None:
    assert found(one, theirs)[kind] > 0


@pytest.mark.parametrize(
    "memory",
    [{"paid": {"r": "another"}}, {"paid": {"x": "o"}}, {"told": {"o": {"b", "gone"}}}],
)
def test_a_promise_that_the_record_does_not_know_is_found(memory: dict[str, Any]) -> None:
    assert found(ours(), bank(), **memory)["broken_promises"] == 1


def test_a_balance_that_is_not_ours_is_found() -> None:
    disputed = {"amount": 50, "status": "lost"}
    assert not found(ours(), bank(disputes=[disputed]))["provider_balance_equals_ours"]


ZERO = (
    "lost_paid",
    "double_charges",
    "double_refunds",
    "ledger_unbalanced",
    "units_unexplained",
)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_forty_orders_under_faults_and_kills_lose_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = main(
        ["money", "--orders=40", "--kills=2", "--checkouts=10", "--database=sqlite", "--seed=3",
         "--buyers=8", "--json"]
    )  # fmt: skip
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["problems"] == []
    assert (code, result["ok"], result["provider_balance_equals_ours"]) == (0, True, True)
    assert result["orders"] >= 40
    assert result["kills"] >= 2
    assert [result[name] for name in ZERO] == [0] * len(ZERO)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_lost_database_costs_nobody_an_order(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["restore", "--orders=6", "--database=sqlite", "--seed=3", "--buyers=3", "--json"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["problems"] == []
    assert (code, result["paid_orders_missing"], result["erasures_undone"]) == (0, 0, 0)
    assert [result[name] for name in ZERO] == [0] * len(ZERO)
