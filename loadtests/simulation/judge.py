"""What viewers heard against what is so, and the gate against the record.

Responsible for the invariants that need more than the record (I4, I10, I12, and the answers of the
design's section 7): an acknowledged hold is there, the same press has one answer, a winner whose
answer was lost never hears "sold out", no unit is lost between gate and record. It must not change
anything.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from commerce.errors import HoldEnded, Refused, RidConflict
from commerce.hold_rule import LAPSES_KEPT
from commerce.presses import fingerprint, normal
from commerce.stock import Hold
from loadtests.simulation.audit_sql import OPEN, Books
from loadtests.simulation.world import Heard, World

PREFIX: Final = b"vitrine:{stock:shop}:"
SEP: Final = "\x1f"

_unpack = msgspec.msgpack.Decoder().decode


def faults_in(world: World, books: Books) -> Iterator[tuple[str, str]]:
    """Each broken promise and what shows it, once all is quiet."""
    heads = {head.rid: head for head in books.heads}
    lines: dict[str, list[tuple[str, int]]] = {}
    for line in books.lines:
        lines.setdefault(line.rid, []).append((line.sku, line.quantity))
    first: dict[str, Hold] = {}
    for heard in world.heard:
        yield from _answer(world, heard, heads.get(heard.press.rid), lines, first)
    for rid in world.sold:
        if heads[rid].state != "sold":
            yield "I3 sold_stays_sold", f"{rid} is {heads[rid].state}"
    set_to: Counter[str] = Counter()
    for entry in books.ledger:
        if entry.kind in ("set", "drain"):
            set_to[entry.sku] += entry.d_on_hand
    yield from _sets(world, books)
    for row in books.stock:
        wanted = world.plan.stock[row.sku] + world.adjusted[row.sku] + set_to[row.sku]
        if row.on_hand != wanted:
            yield "I2 on_hand", f"{row.sku}: {row.on_hand}, should be {wanted}"


def _sets(world: World, books: Books) -> Iterator[tuple[str, str]]:
    """A compare-and-set that was acknowledged has happened once, as far as it could."""
    written: dict[str, list[int]] = {}
    for entry in books.ledger:
        if entry.kind == "set":
            written.setdefault(entry.ref, []).append(entry.d_on_hand)
    for ref, (to, expected, drain) in world.sets.items():
        found = written.get(ref, [])
        enough = len(found) == 1 and (
            expected + found[0] >= to if drain else expected + found[0] == to
        )
        if not enough:
            yield "I2 set_once", f"{ref}: {found} for {expected} to {to}"


def _answer(
    world: World,
    heard: Heard,
    head: Any,
    lines: dict[str, list[tuple[str, int]]],
    first: dict[str, Hold],
) -> Iterator[tuple[str, str]]:
    press, answer = heard.press, heard.answer
    rid = press.rid
    mine = head is not None and head.fingerprint == fingerprint(normal(press))
    if isinstance(answer, Hold):
        if head is None:
            yield "I4 acknowledged_is_durable", f"{rid} is not in the record"
            return
        if not mine:
            yield "I10 rid_of_another", f"{rid}: a hold for another body"
        if world.durable.get(rid, heard.heard_s + 1) > heard.heard_s:
            yield "I4 acknowledged_after_commit", rid
        kept = tuple((line.sku, line.quantity) for line in answer.lines)
        asked: Counter[str] = Counter()
        for line in press.lines:
            asked[line.sku] += line.quantity
        if mine and dict(kept) != asked:
            yield "I8 what_was_asked", f"{rid}: {kept} for {press.lines}"
        if kept != tuple(lines.get(rid, ())) or answer.until_ms != head.until_ms:
            yield "I10 same_answer", f"{rid}: {kept} of {lines.get(rid)}"
        before = first.setdefault(rid, answer)
        if (before.lines, before.receipt, before.total, before.until_ms) != (
            answer.lines, answer.receipt, answer.total, answer.until_ms,
        ):  # fmt: skip
            yield "I10 same_answer", f"{rid}: two different holds"
        if rid not in world.given_back and head.reason not in (None, "deadline"):
            yield "I4 acknowledged_is_kept", f"{rid} ended by {head.reason}"
    elif isinstance(answer, HoldEnded):
        if head is None or head.state not in ("expired", "cancelled"):
            yield "I10 ended_is_ended", f"{rid}: heard that it ended"
    elif isinstance(answer, Refused) and press.retry:
        durable = world.durable.get(rid)
        if durable is None or durable >= heard.sent_s or not lines.get(rid):
            return
        if mine:
            yield "winner_refused", f"{rid} heard {type(answer).__name__}"
        elif not isinstance(answer, RidConflict):
            yield "I10 other_body", f"{rid} heard {type(answer).__name__}"


def free_of(row: Any) -> int:
    """Units of a row of stock that nobody has and that do not run down."""
    return int(row.on_hand - row.held - row.committed - row.draining)


def gate_faults(world: World, books: Books) -> Iterator[tuple[str, str]]:
    """I12: once all is told, the gate's numbers are the record's, one by one."""
    engine = world.valkeys.now

    def table(name: str) -> dict[str, bytes]:
        flat = engine.command("HGETALL", PREFIX + name.encode())
        return {key.decode(): value for key, value in zip(flat[::2], flat[1::2], strict=True)}

    cfg = table("cfg")
    if int(cfg.get("epoch", b"0")) != books.epoch:
        yield "I11 one_epoch", f"gate {cfg.get('epoch')!r}, record {books.epoch}"
        return
    if orphans := engine.command("ZCARD", PREFIX + b"orphan"):
        yield "I13 orphans_end", f"{orphans} left"
    free = {row.sku: free_of(row) for row in books.stock}
    for sku, units in table("stock").items():
        if int(units) != free[sku]:
            yield "I12 gate_is_record", f"{sku}: gate {int(units)}, record {free[sku]}"
    left = {
        f"{row.drop}{SEP}{row.sku}": None if row.units is None else row.units - row.taken
        for row in books.drop_lines
    }
    for key, value in table("lines").items():
        if (int(value) if value else None) != left[key]:
            yield "I12 drop_units", f"{key!r}: gate {value!r}, record {left[key]}"
    used = {f"{row.drop}{SEP}{row.viewer}{SEP}{row.sku}": row.units for row in books.used}
    gate_used = table("used")
    for key, value in gate_used.items():
        if int(value) != used.get(key, 0):
            yield "I12 viewer_units", f"{key!r}: gate {int(value)}, record {used.get(key)}"
    open_drops = {drop.id for drop in books.drops if drop.closed_at is None}
    for key, units in used.items():
        if units and key.split(SEP)[0] in open_drops and key not in gate_used:
            yield "I12 viewer_units", f"{key!r}: gate none, record {units}"
    opened = Counter(head.viewer for head in books.heads if head.state in OPEN)
    lapses = Counter(head.viewer for head in books.heads if head.state == "expired")
    kept = table("open")
    for viewer in sorted({key.removeprefix(SEP) for key in kept} | opened.keys() | lapses.keys()):
        found = int(kept.get(viewer, 0))
        if found != opened[viewer]:
            yield "I12 open_holds", f"{viewer}: gate {found}, record {opened[viewer]}"
        packed = kept.get(SEP + viewer)
        times = 0 if packed is None else len(_unpack(packed))
        if times != min(lapses[viewer], LAPSES_KEPT):
            yield "I12 lapses", f"{viewer}: gate {times}, record {lapses[viewer]}"
