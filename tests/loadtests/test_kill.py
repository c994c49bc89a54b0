"""The kill drill in its short form; and its judge, which must be able to find each kind of loss."""

import json
import random
from typing import Any

import msgspec
import pytest

from commerce.claims import Claim, Kind
from commerce.crash_points import POINTS
from loadtests.__main__ import main
from loadtests.kill_shoppers import Press
from loadtests.kill_truth import (
    Books,
    broken_promises,
    contradictions,
    gate_differences,
    unexplained_money,
    unexplained_units,
)
from loadtests.kill_waves import Deck, Record

HOLD = {"state": "held", "until_ms": 1_000, "receipt": [3, 7]}


def press(*told: str, cancel: bool = False, held: bool = True) -> dict[str, Press]:
    one = Press("r", "v", [("A", 1)], hold=HOLD if held else None, told=set(told))
    one.wanted_cancel = cancel
    return {"r": one}


def books(state: str = "sold", **more: Any) -> Books:
    """One press, sold and paid, in every store."""
    over = state in ("expired", "cancelled")
    head = {"rid": "r", "viewer": "v", "drop": "d", "state": state, "epoch": 3, "n": 7}
    head |= {"closed_at": 2_000, "reason": None}
    held, sold = int(state in ("held", "paying", "closing")), int(state == "sold")
    entries = [{"sku": "A", "d_on_hand": 5, "d_held": 0, "d_committed": 0, "ref": "start"}]
    entries += [{"sku": "A", "d_on_hand": 0, "d_held": held, "d_committed": sold, "ref": "r"}]
    rows: dict[str, list[dict[str, Any]]] = {
        "reservation": [head],
        "reservation_line": [{"rid": "r", "sku": "A", "quantity": 1}],
        "stock_ledger": entries,
        "sku_stock": [{"sku": "A", "on_hand": 5, "held": held, "committed": sold, "draining": 0}],
        "waiting": [],
        "sale_drop_line": [{"drop": "d", "sku": "A", "units": 4, "taken": int(not over)}],
        "viewer_use": [{"drop": "d", "viewer": "v", "sku": "A", "units": int(not over)}],
        "orders": [{"rid": "r", "state": "paid", "total": 500}] if sold else [],
        "payment": [{"id": "p", "rid": "r", "intent_id": "i", "state": "captured"}] if sold else [],
    }
    free = b"%d" % (5 - held - sold)
    gate = {
        "stock": {"A": free},
        "lines": {"d\x1fA": b"%d" % (4 - int(not over))},
        "used": {} if over else {"d\x1fv\x1fA": b"1"},
        "queue": {},
        "rsv": {"r": msgspec.msgpack.encode(["mark", "M" if held else "P"])},
    }
    intents = [{"id": "i", "status": "succeeded", "amount_received": 500}] if sold else []
    whole = Books(rows, gate, 0, 0, intents)
    for name, change in more.items():
        if name in gate:
            gate[name] |= change
        elif name == "intents":
            whole.intents[:] = change
        else:
            rows[name] = [{**row, **change} for row in rows[name]] if change else []
    return whole


def found(one: Books, presses: dict[str, Press]) -> list[str]:
    everything = [
        *broken_promises(one, presses),
        *unexplained_units(one),
        *gate_differences(one),
        *unexplained_money(one),
    ]
    return [violation.what for violation in everything]


@pytest.mark.parametrize(
    ("one", "presses"),
    [
        (books(), press("sold", "paid")),
        (books("expired"), press("expired")),
        (books("cancelled"), press("cancelled", cancel=True)),
        (books("held"), press()),
    ],
)
def test_what_is_in_order_is_found_in_order(one: Books, presses: dict[str, Press]) -> None:
    assert found(one, presses) == []


@pytest.mark.parametrize(
    ("one", "presses", "says"),
    [
        (books("expired", reservation=None, reservation_line=None), press(), "does not know it"),
        (books(reservation={"n": 8}), press(), "receipt"),
        (books("cancelled", reservation={"reason": "orphan"}), press(), "as nobody's"),
        (books("cancelled"), press(), "by nobody"),
        (books("expired", reservation={"closed_at": 999}), press(), "too early"),
        (books("expired"), press("sold"), "told sold, and the record has expired"),
        (books(), press("cancelled"), "told cancelled, and the record has sold"),
        (books(orders=None), press("sold"), "there is no order"),
        (books(orders={"state": "placed"}), press("paid"), "the order is not"),
        (books(sku_stock={"on_hand": 6}), press(), "the ledger has"),
        (books(reservation_line=None), press(), "holds"),
        (books(sale_drop_line={"taken": 2}), press(), "taken"),
        (books(viewer_use={"units": 2}), press(), "has used"),
        (books(stock={"A": b"5"}), press(), "the gate has 5"),
        (books(lines={"d\x1fA": b"4"}), press(), "left"),
        (books(used={"d\x1fv\x1fA": b"2"}), press(), "the gate counts"),
        (
            books("expired", rsv={"r": msgspec.msgpack.encode(["mark", "M"])}),
            press(),
            "the gate holds what the record has as expired",
        ),
        (
            books(orders=None, payment=None),
            press(),
            "paid without an order",
        ),
        (
            books(intents=[{"id": "i", "status": "requires_capture"}]),
            press(),
            "reserved for nobody",
        ),
        (
            books(intents=[{"id": "i", "status": "succeeded", "amount_received": 499}]),
            press(),
            "another amount",
        ),
        (books(intents=[]), press(), "stays captured"),
        (books(payment={"state": "open"}), press(), "an order with 0 payments"),
    ],
)
def test_each_loss_is_found(one: Books, presses: dict[str, Press], says: str) -> None:
    assert any(says in what for what in found(one, presses)), found(one, presses)


def waits(answered: str, state: str) -> tuple[Books, dict[str, Press]]:
    """The same press, which had waited before; its entry is `state` in the record."""
    one, presses = books(), press("sold", "paid")
    presses["r"].waited = answered
    one.rows["waiting"] = [{"rid": "r", "state": state}] if state else []
    return one, presses


@pytest.mark.parametrize(
    ("answered", "state", "says"),
    [
        ("waiting", "", "knows of no entry"),
        ("left", "offered", "told left"),
        ("offered", "waiting", "told offered"),
        ("waiting", "waiting", "not in the gate"),
    ],
)
def test_a_broken_wait_is_found(answered: str, state: str, says: str) -> None:
    assert any(says in what for what in found(*waits(answered, state)))


def test_waits_that_are_kept_and_units_that_run_down_are_in_order() -> None:
    assert found(*waits("waiting", "offered")) == []
    one, presses = waits("waiting", "waiting")
    one.gate["queue"]["r"] = b"d\x1fA\x1f1\x1fr"
    assert found(one, presses) == []
    one.rows["waiting"] = []
    assert "waits in the gate, and not in the record" in found(one, {})
    running_down = books("held", stock={"A": b"3"}, sku_stock={"draining": 1})
    assert found(running_down, press()) == []
    assert any("run down" in what for what in found(books(sku_stock={"draining": 1}), press()))


def test_the_order_of_claims_is_judged_too() -> None:
    loaded = Claim(1, 0, Kind.LOADED, 5, lines=(("A", 1),))
    won = [Claim(1, n, Kind.WON, 5, "d", f"r{n}", "v", (("A", 1),)) for n in (1, 2)]
    assert contradictions([loaded, won[0]]) == []
    assert len(contradictions([loaded, *won])) == 1


def test_crash_points_that_were_missed_are_told_of_each_database() -> None:
    record = Record()
    for record.database, point in (("sqlite", POINTS[0]), ("postgresql", POINTS[1])):
        record.note("crash point", point)
    missed = record.summary()["kills"]["crash_points_missed"]
    assert missed == {"postgresql": [POINTS[0], *POINTS[2:]], "sqlite": list(POINTS[1:])}


def test_a_deck_deals_every_crash_point_and_the_reaper_only_in_the_calm() -> None:
    deck = Deck(random.Random(1))
    storm = [deck.draw(0, calm=False) for _ in range(200)]
    calm = [deck.draw(0, calm=True) for _ in range(200)]
    assert set(calm) - {None} == set(POINTS)
    assert {point for point in POINTS if point.startswith("reap")} & set(storm) == set()
    assert set(storm) | set(calm) == {*POINTS, None}
    assert "inbox:after_commit" not in [deck.draw(1, calm=True) for _ in range(200)]


def test_recovery_is_from_the_kill_to_the_win_of_a_later_press_of_that_node() -> None:
    record = Record()
    record.note("node", "", "http://127.0.0.1:1")
    at = record.kills[0].at
    record.won("ws://127.0.0.1:2/live", at + 1)
    record.won("ws://127.0.0.1:1/live", at - 1)
    assert record.kills[0].back_ms is None
    record.won("ws://127.0.0.1:1/live", at + 1)
    assert record.kills[0].back_ms is not None


@pytest.mark.slow
def test_six_kills_lose_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["kill", "--kills=6", "--database=sqlite", "--buyers=10", "--seed=7", "--json"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["problems"] == []
    assert (code, result["ok"]) == (0, True)
    assert result["kills"]["total"] >= 6
    assert result["presses"] >= result["winners"] > 0
    assert (result["oversold"], result["lost_acknowledged"], result["unaccounted"]) == (0, 0, 0)
