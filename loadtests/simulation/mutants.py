"""Faults planted into the production code: each must be found by the simulation, by name.

Responsible for the table of mutants and for planting one in a fresh process. A mutant is pieces of
the production source with what stands there instead; nothing of it is in the production code. A
piece that is not there exactly once is an error, so a mutant cannot fall silent when the code
changes. Where two walls guard the same promise, a mutant takes both away.

Python sources are changed while they are imported, so `plant` comes before the first import of
`commerce`; Lua sources are changed when the script is loaded into the engine.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, Final, NamedTuple

from typing_extensions import override

ROOT: Final = Path(__file__).resolve().parent.parent.parent


class Piece(NamedTuple):
    """In this file, `old` becomes `new`."""

    file: str
    old: str
    new: str


class NotThere(Exception):
    """The production code has changed: this piece of a mutant is not in it exactly once."""


MUTANTS: Final[dict[str, tuple[Piece, ...]]] = {
    "no_gate_fence": (
        Piece(
            "commerce/lua/gate.lua",
            "return tonumber(cfg[1]) ~= epoch or cfg[2] ~= engine()",
            "return false",
        ),
    ),
    "no_engine_identity": (
        Piece("commerce/lua/gate.lua", " or cfg[2] ~= engine()", ""),
        Piece("commerce/lua/epoch.lua", "cfg[2] == engine()", "true"),
    ),
    "no_record_fence": (
        Piece("commerce/record_sql.py", "if grounds.epoch != epoch:", "if False:"),
    ),
    "fence_not_noticed": (
        Piece("commerce/reserving.py", "self._keeper.refused(epoch)", "pass"),
        Piece("commerce/gatekeeper.py", "self.refused(epoch)  # the next", "pass  # the next"),
    ),
    "no_stock_walls": (
        Piece("commerce/lua/reserve.lua", "if units < what[i + 1] then", "if false then"),
        Piece(
            "commerce/winners_sql.py",
            '"t.held + t.committed + t.draining + x.held > t.on_hand"',
            '"1 = 0"',
        ),
        Piece("commerce/schema_sql.py", '"held + committed <= on_hand"', '"held >= 0"'),
    ),
    "no_viewer_limit": (
        Piece("commerce/lua/reserve.lua", "if used + what[i + 1] > drop[5] then", "if false then"),
        Piece(
            "commerce/winners_sql.py",
            "if limit is not None and units > limit:",
            "if False:",
        ),
        Piece(
            "commerce/winners_sql.py",
            '"WHERE viewer_use.units + excluded.units <= "',
            '"WHERE 0 <= "',
        ),
        Piece(
            "commerce/winners_sql.py",
            "if drop.per_viewer is not None and line.quantity > drop.per_viewer:",
            "if False:",
        ),
    ),
    "no_open_holds_limit": (
        Piece("commerce/lua/reserve.lua", ">= open_max then", ">= open_max + 9 then"),
        Piece(
            "commerce/winners_sql.py",
            "if open_holds[press.viewer] >= OPEN_HOLDS_MAX:",
            "if False:",
        ),
    ),
    "no_summing": (
        Piece(
            "commerce/presses.py",
            "sums[line.sku] = sums.get(line.sku, 0) + line.quantity",
            "sums[line.sku] = line.quantity",
        ),
    ),
    "release_before_cancel_commits": (
        Piece(
            "commerce/checkout.py",
            "        hold = await self._record.cancel(viewer, rid, self._clock())\n",
            "        early = await self._record.find(rid)\n"
            "        if early is not None:\n"
            "            from dataclasses import replace\n"
            "            from commerce.stock import HoldState as State\n"
            "            await self.upkeep.tell([replace(early, state=State.CANCELLED)])\n"
            "        hold = await self._record.cancel(viewer, rid, self._clock())\n",
        ),
    ),
    "expiry_before_replay": (
        Piece(
            "commerce/lua/reserve.lua",
            "  if entry and entry[FP] ~= press[2] then",
            "  if entry and entry[UNTIL] < now then entry = nil end\n"
            "  if entry and entry[FP] ~= press[2] then",
        ),
    ),
    "answer_before_commit": (
        Piece(
            "commerce/record_sql.py",
            "                lambda conn: _write(conn, epoch, winners, now),\n",
            "                lambda conn: _early(self, _write(conn, epoch, winners, now)),\n",
        ),
        Piece(
            "commerce/record_sql.py",
            "async def _write(\n",
            "async def _early(self, work):\n"
            "    self._early = await work\n"
            "    return self._early\n\n\n"
            "async def _write(\n",
        ),
        Piece(
            "commerce/record_sql.py",
            "                if attempt == WRITE_TRIES:\n                    raise\n",
            "                early = getattr(self, '_early', {})\n"
            "                if {winner.press.rid for winner in winners} <= early.keys():\n"
            "                    return early\n"
            "                if attempt == WRITE_TRIES:\n                    raise\n",
        ),
    ),
    "mark_before_commit": (
        Piece(
            "commerce/reserving.py",
            "        winners = [_winner(case) for case in cases]\n        try:\n",
            "        winners = [_winner(case) for case in cases]\n"
            "        await self._tell(epoch, [case.press.rid for case in cases], [])\n"
            "        try:\n",
        ),
    ),
    "double_release": (
        Piece(
            "commerce/lua/release.lua",
            "if entry and (entry[STATE] == 'H' or entry[STATE] == 'M') then",
            "if entry then",
        ),
    ),
    "units_of_viewer_kept": (
        Piece(
            "commerce/lua/release.lua",
            "    bump(USED, entry[DROP] .. SEP .. entry[VIEWER] .. SEP .. what[i], -what[i + 1])\n",
            "",
        ),
    ),
    "reaper_without_tombstone": (
        Piece(
            "commerce/upkeep.py",
            "states = await self._record.tombstone(orphans, now)",
            "rids = [orphan.rid for orphan in orphans]\n"
            "        found = await self._record.find_many(rids)\n"
            "        states = {rid: hold.state for rid, (_mark, hold) in found.items()}",
        ),
    ),
    "no_reaper": (Piece("commerce/upkeep.py", "        if not orphans:\n", "        if True:\n"),),
    "relay_skips": (
        Piece("commerce/upkeep.py", "        if known:\n", "        if len(known) == 1:\n"),
        Piece("commerce/upkeep.py", "        if not ends:\n", "        if True:\n"),
    ),
    "relay_marks_first": (
        Piece(
            "commerce/upkeep.py",
            "        gate = self._keeper.gate\n"
            '        ends = [_end(fact) for fact in facts if fact.topic == "hold"]\n',
            "        gate = self._keeper.gate\n"
            "        told = [fact.id for fact in facts]\n"
            "        await self._facts.gate_done(told, epoch, self._clock())\n"
            '        self._crash_point("relay:after_gate")\n'
            '        ends = [_end(fact) for fact in facts if fact.topic == "hold"]\n',
        ),
    ),
    "relay_ignores_the_epoch": (
        Piece(
            "commerce/outbox_sql.py",
            "            if (await conn.execute(current)).scalar() != epoch:\n",
            "            if (await conn.execute(current)).scalar() is None:\n",
        ),
    ),
    "flag_refuses_retries": (
        Piece(
            "commerce/board.py",
            "if press.retry or not self._flags:",
            "if not self._flags:",
        ),
    ),
    "refusal_without_the_record": (
        Piece(
            "commerce/reserving.py",
            "if case.marked or decision.verdict is Verdict.CONFLICT:",
            "if False:",
        ),
    ),
    "any_body_under_a_rid": (
        Piece("commerce/reserving.py", "elif known[0] != case.fingerprint:", "elif False:"),
    ),
    "stale_image_loaded": (
        Piece(
            "commerce/gatekeeper.py",
            "        epoch = await self._record.next_epoch(current, floor)\n",
            "        early = await self._record.image(current, self._clock())\n"
            "        epoch = await self._record.next_epoch(current, floor)\n",
        ),
        Piece(
            "commerce/gatekeeper.py",
            "image = await self._record.image(epoch, now)",
            "image = early",
        ),
    ),
    "nobody_is_served_at_once": (
        Piece(
            "commerce/lua/release.lua",
            "for sku in pairs(touched) do\n  serve(sku, arg[4])\nend\n",
            "",
        ),
    ),
    "free_while_somebody_waits": (
        Piece("commerce/lua/gate.lua", "if units > 0 and head_of(drop, sku) then return 0 end", ""),
    ),
    "leaving_drops_an_unmade_offer": (
        Piece(
            "commerce/lua/dequeue.lua",
            "if not (entry[STATE] == 'H' and entry[FP] == fp) then",
            "if true then",
        ),
    ),
    "last_come_first_served": (
        Piece(
            "commerce/lua/gate.lua",
            "redis.call('ZRANGEBYLEX', QUEUE, '[' .. key .. SEP, '(' .. key .. '\\32',",
            "redis.call('ZREVRANGEBYLEX', QUEUE, '(' .. key .. '\\32', '[' .. key .. SEP,",
        ),
    ),
    "without_a_gate_anybody_overtakes": (
        Piece(
            "commerce/record_sql.py", "rule=self._rule, waited_for=waited_for", "rule=self._rule"
        ),
    ),
    "lapses_forgotten": (
        Piece(
            "commerce/lua/release.lua",
            "    if how == 'lapsed' then lapse(entry[VIEWER]) end\n",
            "",
        ),
    ),
    "drained_units_return": (
        Piece(
            "commerce/reservations_sql.py", "        if after.draining:\n", "        if False:\n"
        ),
    ),
    "lots_not_kept": (
        Piece(
            "commerce/raffle_sql.py",
            "ranks = ranking(found.seed, by_rid)",
            "ranks = sorted(by_rid)",
        ),
    ),
    "changes_counted_twice": (
        Piece(
            "commerce/lua/adjust.lua", "if not redis.call('ZSCORE', OPS, seen) then", "if true then"
        ),
    ),
    "expires_too_early": (
        Piece(
            "commerce/reservations_sql.py",
            'reservation.c.until_ms <= bindparam("now"))',
            'reservation.c.until_ms <= bindparam("now") + 900)',
        ),
        Piece(
            "commerce/reservations_sql.py",
            "and_(state == HoldState.HELD, until_ms <= now))",
            "and_(state == HoldState.HELD, until_ms <= now + 900))",
        ),
    ),
    "expires_while_somebody_pays": (
        Piece(
            "commerce/reservations_sql.py",
            ".where(reservation.c.state == HoldState.HELD, reservation.c.until_ms <=",
            ".where(reservation.c.state.in_(['held', 'paying']), reservation.c.until_ms <=",
        ),
        Piece(
            "commerce/reservations_sql.py",
            "and_(state == HoldState.HELD, until_ms <= now))",
            "and_(state.in_(['held', 'paying']), until_ms <= now))",
        ),
    ),
    "no_ledger_of_releases": (
        Piece(
            "commerce/reservations_sql.py",
            "    await insert_rows(conn, stock_ledger, ledger)\n    await coupons_sql",
            "    if sold:\n        await insert_rows(conn, stock_ledger, ledger)\n"
            "    await coupons_sql",
        ),
    ),
}


class Found(NamedTuple):
    """A seed that finds a mutant, and the promise that it sees broken first."""

    seed: int
    by: str


FOUND_AT: Final[dict[str, Found]] = {
    "no_gate_fence": Found(7, "loops_never_end"),
    "no_engine_identity": Found(1, "I26 one_place_each"),
    "no_record_fence": Found(12, "I12 lapses"),
    "fence_not_noticed": Found(4, "I13 free_in_time"),
    "no_stock_walls": Found(1, "I26 oversold"),
    "no_viewer_limit": Found(9, "I9 limit"),
    "no_open_holds_limit": Found(6, "I9 open_holds"),
    "no_summing": Found(1, "I8 what_was_asked"),
    "release_before_cancel_commits": Found(7, "I12 lapses"),
    "expiry_before_replay": Found(6, "I12 lapses"),
    "answer_before_commit": Found(10, "I4 acknowledged_is_durable"),
    "mark_before_commit": Found(17, "I12 gate_is_record"),
    "double_release": Found(1, "I12 gate_is_record"),
    "units_of_viewer_kept": Found(1, "I12 viewer_units"),
    "reaper_without_tombstone": Found(113, "I12 lapses"),
    "no_reaper": Found(39, "I13 free_in_time"),
    "relay_skips": Found(1, "I12 gate_is_record"),
    "relay_marks_first": Found(15, "I13 free_in_time"),
    "relay_ignores_the_epoch": Found(85, "I12 gate_is_record"),
    "flag_refuses_retries": Found(1, "winner_refused"),
    "refusal_without_the_record": Found(140, "winner_refused"),
    "any_body_under_a_rid": Found(6, "I10 rid_of_another"),
    "stale_image_loaded": Found(10, "I22 overtaken"),
    "nobody_is_served_at_once": Found(4, "I22 served_at_once"),
    "free_while_somebody_waits": Found(2, "I22 free_while_somebody_waits"),
    "leaving_drops_an_unmade_offer": Found(21, "I12 gate_is_record"),
    "last_come_first_served": Found(2, "I22 overtaken"),
    "without_a_gate_anybody_overtakes": Found(2, "I22 overtaken"),
    "lapses_forgotten": Found(1, "I12 lapses"),
    "drained_units_return": Found(4, "I2 draining"),
    "lots_not_kept": Found(24, "I22 raffle"),
    "changes_counted_twice": Found(2, "I12 gate_is_record"),
    "expires_too_early": Found(1, "I13 not_before_deadline"),
    "expires_while_somebody_pays": Found(37, "I7 payable_is_kept"),
    "no_ledger_of_releases": Found(1, "I2 ledger"),
}
"""Of each mutant. The plan of a seed may change: `simulate --mutant NAME` looks for another one."""


def pieces_of(name: str) -> tuple[Piece, ...]:
    """A mutant's pieces, each of them found in the production code. Raises KeyError, NotThere."""
    for piece in MUTANTS[name]:
        count = (ROOT / piece.file).read_text(encoding="utf-8").count(piece.old)
        if count != 1:
            raise NotThere(f"{name}: {count} times in {piece.file}: {piece.old!r}")
    return MUTANTS[name]


def plant(name: str) -> list[tuple[str, str]]:
    """Plants a mutant in this process; the changes that remain for the Lua scripts.

    Raises KeyError for an unknown name, NotThere, RuntimeError if a module is imported already.
    """
    lua = []
    python: dict[str, list[Piece]] = {}
    for piece in pieces_of(name):
        if piece.file.endswith(".lua"):
            lua.append((piece.old, piece.new))
        else:
            module = piece.file.removesuffix(".py").replace("/", ".")
            python.setdefault(module, []).append(piece)
    if early := python.keys() & sys.modules.keys():
        raise RuntimeError(f"imported before the mutant was planted: {sorted(early)}")
    if python:
        sys.meta_path.insert(0, _Finder(python))
    return lua


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, pieces: dict[str, list[Piece]]) -> None:
        self._pieces = pieces

    @override
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        pieces = self._pieces.get(fullname)
        if pieces is None:
            return None
        place = str(ROOT / pieces[0].file)
        loader = _Loader(fullname, place, pieces)
        return importlib.util.spec_from_file_location(fullname, place, loader=loader)


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, fullname: str, path: str, pieces: Sequence[Piece]) -> None:
        super().__init__(fullname, path)
        self._pieces = pieces

    @override
    def get_code(self, fullname: str) -> CodeType | None:
        source = Path(self.path).read_text(encoding="utf-8")
        for piece in self._pieces:
            source = source.replace(piece.old, piece.new)
        code: Any = compile(source, self.path, "exec", dont_inherit=True)
        return code  # type: ignore[no-any-return]
