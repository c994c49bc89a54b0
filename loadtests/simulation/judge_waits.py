"""Wait lists and raffles: what was heard, what the record tells and what the gate's log shows.

Responsible for I22 (a list is served in its order, nobody overtakes it, a raffle is a function of
its seed and its entries) as the record tells it, and for offers that end or go on; the gate's own
story is `judge_log`'s. It computes lots and orders by itself and must not ask the production code
for them.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from hashlib import sha256
from itertools import groupby
from typing import Any

from commerce.claims import Logged
from commerce.waiting import WaitState
from loadtests.simulation.audit_sql import PENDING, Books
from loadtests.simulation.judge import PREFIX, SEP, free_of
from loadtests.simulation.judge_log import Entry, log_faults
from loadtests.simulation.plan import Fault
from loadtests.simulation.world import START_MS, World

List = tuple[str, str]
"""A drop and a SKU."""


def faults_in(
    world: World, books: Books, told: Sequence[Any], logs: Sequence[Sequence[Logged]]
) -> Iterator[tuple[str, str]]:
    """Each broken promise and what shows it, once all is quiet. `told`: the outbox of the lists."""
    yield from _heard(world, books)
    yield from _raffles(books)
    yield from ended_faults(books)
    yield from _gate(world, books)
    if not world.faults[Fault.CLOCK]:
        yield from _order_told(world, books, told)
        yield from _overtaken(world, books)
    entries = {row.rid: Entry(turn_of(row), int(row.quantity)) for row in books.waiting}
    for log in logs:
        yield from log_faults(log, entries, world.levels, world.opens)


def turn_of(row: Any) -> int:
    """The place of an entry: its lot, or the order of arrival."""
    return int(row.n if row.place is None else row.place)


def _heard(world: World, books: Books) -> Iterator[tuple[str, str]]:
    rows = {row.rid: row for row in books.waiting}
    for rid, joined in world.joined.items():
        row, wait = rows.get(rid), joined.wait
        if row is None:
            yield "I4 acknowledged_is_durable", f"{rid} is on no list"
            continue
        if (row.viewer, row.sku, row.quantity) != (wait.viewer, wait.sku, wait.quantity):
            yield "I10 same_answer", f"{rid}: {row!r}"
        if row.state == "left" and rid not in world.leaving:
            yield "I4 acknowledged_is_kept", f"{rid} left by itself"
    for rid in world.left:
        if rows[rid].state != "left":
            yield "I10 ended_is_ended", f"{rid} left and is {rows[rid].state}"


def _raffles(books: Books) -> Iterator[tuple[str, str]]:
    for drop in books.drops:
        if drop.drawn_at is None:
            continue
        seed = bytes.fromhex(drop.seed)
        placed = [row for row in books.waiting if row.drop == drop.id and row.place is not None]
        lots = sorted((sha256(seed + row.rid.encode()).digest(), row.rid) for row in placed)
        found = [row.rid for row in sorted(placed, key=lambda row: int(row.place))]
        if [rid for _lot, rid in lots] != found or drop.entries != len(placed):
            yield "I22 raffle", f"{drop.id}: {found} of {drop.entries}"
        if [int(row.place) for row in sorted(placed, key=turn_of)] != [*range(1, len(placed) + 1)]:
            yield "I22 places", f"{drop.id}: {sorted(int(row.place) for row in placed)}"
        if sha256(seed).hexdigest() != drop.seed_sha:
            yield "I22 seed", drop.id


def ended_faults(books: Books) -> Iterator[tuple[str, str]]:
    """Nobody waits in vain: not in a closed drop, and not for what is free."""
    closed = {drop.id for drop in books.drops if drop.closed_at is not None}
    for what in _waits_in_vain(books):
        yield "I22 offers_go_on", what
    for row in books.waiting:
        if row.drop in closed and row.state in PENDING:
            yield "I22 lists_end", f"{row.rid} still {row.state}"


def _waits_in_vain(books: Books) -> Iterator[str]:
    """The first of each list for whom there is enough."""
    drops = {drop.id: drop for drop in books.drops}
    free = {row.sku: free_of(row) for row in books.stock}
    left = {(row.drop, row.sku): row for row in books.drop_lines}
    seen: set[List] = set()
    for row in books.waiting:
        key = (row.drop, row.sku)
        if row.state != "waiting" or key in seen or drops[row.drop].closed_at is not None:
            continue
        seen.add(key)
        line = left[key]
        units = free[row.sku] if line.units is None else min(free[row.sku], line.units - line.taken)
        if units >= row.quantity:
            yield f"{row.rid} waits for {row.quantity} of {units}"


def _gate(world: World, books: Books) -> Iterator[tuple[str, str]]:
    """I12 of the lists: the gate's are the record's."""
    engine = world.valkeys.now
    open_drops = {drop.id for drop in books.drops if drop.closed_at is None}
    wanted = {
        SEP.join((row.drop, row.sku, f"{turn_of(row):016d}", row.rid))
        for row in books.waiting
        if row.state == "waiting" and row.drop in open_drops
    }
    queue = {key.decode() for key in engine.command("ZRANGE", PREFIX + b"queue", 0, -1)}
    queue = {key for key in queue if key.split(SEP)[0] in open_drops}
    if queue != wanted:
        yield "I12 queue", f"gate {sorted(queue - wanted)}, record {sorted(wanted - queue)}"
    for rid in engine.command("ZRANGE", PREFIX + b"offered", 0, -1):
        yield "I22 offers_go_on", f"{rid!r} is not in the record"


def _overtaken(world: World, books: Books) -> Iterator[tuple[str, str]]:
    """Where the record decided alone: did a press win what somebody waited for?

    Somebody who had heard that they wait before it was decided, and waited still when it was
    durable; nobody waits for a drop that has closed. What a gate decided is in its log; what it
    had offered is lost with it.
    """
    closed = {drop.id: drop.closed_at for drop in books.drops}
    entries = {row.rid: row for row in books.waiting}
    lists: defaultdict[List, list[Any]] = defaultdict(list)
    for rid, joined in world.joined.items():
        if joined.state is WaitState.WAITING and rid in entries:
            lists[joined.wait.drop, joined.wait.sku].append(entries[rid])
    heads = {head.rid: head for head in books.heads}
    for line in books.lines:
        head = heads[line.rid]
        if head.epoch in world.opens:
            continue
        durable_ms = START_MS + world.durable[line.rid] * 1000
        for row in lists[head.drop, line.sku] if line.rid not in entries else ():
            since = START_MS + world.joined[row.rid].heard_s * 1000
            ended = [at for at in (row.closed_at, closed[head.drop]) if at is not None]
            if since < head.created_at and durable_ms < min(ended, default=durable_ms + 1):
                yield "I22 overtaken", f"{line.rid} won {line.sku} before {row.rid}"


def _order_told(world: World, books: Books, told: Sequence[Any]) -> Iterator[tuple[str, str]]:
    """The record's own story: who was served while somebody before them waited?

    Somebody who was told that they wait, before the gate gave the unit away: whose join is not
    answered yet may be overtaken, since no gate knows of them.
    """
    given = {head.rid: head.created_at for head in books.heads}
    waits_since = {rid: START_MS + joined.heard_s * 1000 for rid, joined in world.joined.items()}
    lists: defaultdict[List, dict[str, int]] = defaultdict(dict)
    facts = [
        json.loads(row.payload) if isinstance(row.payload, str) else row.payload for row in told
    ]
    pairs = zip(facts, (row.created_at for row in told), strict=True)
    for _at, group in groupby(pairs, key=lambda pair: pair[1]):  # a transaction
        served: list[tuple[List, int, int]] = []
        for fact, _when in group:
            key = (fact["drop"], fact["sku"])
            if fact["state"] == "waiting":
                lists[key][fact["rid"]] = fact["place"]
                continue
            place = lists[key].pop(fact["rid"], fact["place"])
            if fact["state"] == "offered":
                served.append((key, place, given[fact["rid"]]))
        for key, place, at in served:
            before = [
                rid
                for rid, other in lists[key].items()
                if other < place and waits_since.get(rid, at) < at
            ]
            if before:
                yield "I22 overtaken", f"place {place} of {key} before {before}"
