"""The gate alone, without a record behind it: what its scripts decide."""

import pytest

from commerce.gate import Ask, Decision, Entry, Image, Verdict
from commerce.stock import Drop, DropLine
from commerce.stock_redis import RedisGate
from realtime.caller_redis import Caller
from tests.commerce.stock_support import START

DROP = Drop("d", "show", "Drop", START, None, 60, 2, (DropLine("A", 5), DropLine("B")))


def _image(entries: tuple[Entry, ...] = ()) -> Image:
    return Image(
        drops=[DROP],
        left={("d", "A"): 5, ("d", "B"): None},
        stock={"A": 9, "B": 2_500},
        used={("d", "old", "A"): 2},
        entries=list(entries),
    )


async def _decide(gate: RedisGate, *asks: Ask) -> list[Decision]:
    decisions, _levels = await gate.reserve(1, asks, START)
    return decisions


@pytest.mark.parametrize("line", [None, Caller])
async def test_the_gate_refuses_by_itself_what_the_record_would_refuse(
    valkey_url: str, line: type[Caller] | None
) -> None:
    gate = RedisGate.connect(valkey_url, line=line)
    try:
        await gate.load(1, _image(), START)
        one = (("B", 1),)
        decisions = await _decide(
            gate,
            Ask("r1", "f1", "v", "d", one),
            Ask("r1", "stranger", "w", "d", one),
            Ask("r2", "f2", "v", "d", (("A", 1),)),
            Ask("r3", "f3", "v", "d", (("B", 2),)),  # two are allowed, one is held
            Ask("r4", "f4", "v", "d", (("A", 1),)),
            Ask("r5", "f5", "v", "d", (("A", 1),)),  # the fourth open hold
            Ask("r6", "f6", "old", "d", (("A", 1),)),
            Ask("r7", "f7", "w", "d", (("A", 4),)),
            Ask("r8", "f8", "w", "d", (("C", 1),)),
            Ask("r9", "f9", "w", "nowhere", one),
            Ask("r10", "f10", "w", "d", one, price_ok=False),
            Ask("r1", "f1", "v", "d", one, price_ok=False),
        )
        assert [(found.verdict, found.sku, found.number) for found in decisions] == [
            (Verdict.WON, None, 0),
            (Verdict.CONFLICT, None, 0),
            (Verdict.WON, None, 0),
            (Verdict.LIMIT, "B", 2),
            (Verdict.WON, None, 0),
            (Verdict.LIMIT, None, 3),
            (Verdict.LIMIT, "A", 2),
            (Verdict.SOLD_OUT, "A", 3),
            (Verdict.UNKNOWN_SKU, "C", 0),
            (Verdict.UNKNOWN_DROP, None, 0),
            (Verdict.PRICE, None, 0),
            (Verdict.WON, None, 0),
        ]
        assert [found.n for found in decisions] == [1, 0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 1]
        await gate.mark(1, ["r1"], START)
        known = await _decide(
            gate, Ask("r1", "f1", "v", "d", one), Ask("r1", "stranger", "v", "d", one)
        )
        assert [found.verdict for found in known] == [Verdict.KNOWN, Verdict.CONFLICT]
    finally:
        await gate.close()


@pytest.mark.parametrize("line", [None, Caller])
async def test_an_image_of_thousands_is_loaded_in_pieces(
    valkey_url: str, line: type[Caller] | None
) -> None:
    gate = RedisGate.connect(valkey_url, line=line)
    try:
        entries = tuple(
            Entry(f"r{n}", "f", f"v{n}", "d", (("B", 1),), START + 60_000, False, None)
            for n in range(2_500)
        )
        await gate.load(1, _image(entries), START)
        assert await gate.epoch() == 1
        again = await _decide(gate, Ask("r2499", "f", "v2499", "d", (("B", 1),)))
        assert again[0].verdict is Verdict.KNOWN
    finally:
        await gate.close()
