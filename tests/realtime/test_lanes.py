"""The recovery law, on the pure half of a room, for any history.

A pure engine that numbers entries drives `Lanes`; viewers are the tests' own `View`s. Whatever is
published, cut, lost, healed, slept through or rejoined, all views end equal.
"""

from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime import lanes as module
from realtime.broker import Batch, ChatEntry, ControlEntry, RoomImage, StateEntry
from realtime.counters import Counters
from realtime.lanes import Lanes, Mark
from realtime.wire import Position, pack_chat, pack_control, pack_state
from tests.realtime.kit import View, unpack_all


@pytest.fixture(autouse=True, scope="module")
def _short_log():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "LOG_ENTRIES_MAX", LOG_MAX)
        yield


@dataclass
class Engine:
    """What publish.lua does, in ten lines."""

    epoch: int = 1
    control: list[ControlEntry] = field(default_factory=list)
    chat: list[ChatEntry] = field(default_factory=list)
    tops: list[int] = field(default_factory=lambda: [0, 0])
    facts: dict[str, Any] = field(default_factory=dict)
    states: dict[str, StateEntry] = field(default_factory=dict)

    def fact(self, key: str, value: Any, retracts: int | None = None) -> ControlEntry:
        self.tops[0] += 1
        wire = pack_control(self.tops[0], key, value)
        entry = ControlEntry(self.tops[0], key, value, retracts is None, retracts, wire)
        self.control.append(entry)
        if retracts is None:
            if value is None:
                self.facts.pop(key, None)
            else:
                self.facts[key] = value
        else:
            self.chat = [chat for chat in self.chat if chat.offset != retracts]
        return entry

    def comment(self) -> ChatEntry:
        self.tops[1] += 1
        offset = self.tops[1]
        self.chat.append(ChatEntry(offset, pack_chat(offset, f"c{offset}"), offset % KEPT == 0))
        return self.chat[-1]

    def state(self, key: str, version: int) -> StateEntry:
        entry = StateEntry(key, version, version, pack_state(key, version, version))
        if key not in self.states or self.states[key].version < version:
            self.states[key] = entry
        return entry

    def image(self) -> RoomImage:
        floors = [max(0, top - LOG_MAX) for top in self.tops]
        return RoomImage(
            Position(f"e{self.epoch}", *self.tops),
            dict(self.facts),
            list(self.states.values()),
            [entry for entry in self.control if entry.offset > floors[0]],
            [entry for entry in self.chat if entry.offset > floors[1]],
        )

    def batch(self, *entries: Any) -> Batch:
        return Batch(f"e{self.epoch}", list(entries))


@dataclass
class Guest:
    """A viewer as the room sees it: current, lagging at a mark, or away."""

    view: View = field(default_factory=View)
    mark: Mark | None = None
    away: bool = True
    renewed: bool = False
    """It was away for longer than the log and began anew."""

    def read(self, data: bytes) -> None:
        for push in unpack_all(data):
            self.view.apply(push)

    def join(self, lanes: Lanes) -> bool:
        self.away, self.mark = False, None
        old = self.view.position
        data = lanes.recovery(Position(*old)) if old[0] else None
        self.read(lanes.snapshot() if data is None else data)
        self.renewed |= data is None and old[0] is not None
        return data is not None


LOG_MAX = 40
"""Shorter than the real one, so that short stories fall out of it."""
KEPT = 7
"""Each seventh comment is one that is never sampled away."""
GUESTS = 4
KEYS = st.sampled_from(["pin", "show", "drop:1"])
STEP = st.one_of(
    st.tuples(st.just("fact"), KEYS, st.one_of(st.none(), st.integers(0, 9))),
    st.tuples(st.just("comment"), st.integers(1, 30)),
    st.tuples(st.just("state"), st.sampled_from(["a", "b"]), st.integers(0, 20)),
    st.tuples(st.just("retract"), st.integers(1, 40)),
    st.tuples(st.just("cut")),
    st.tuples(st.just("squeeze"), st.integers(0, 60)),
    st.tuples(st.just("hold"), st.sets(st.sampled_from(["a", "b"]))),
    st.tuples(st.just("away"), st.integers(0, GUESTS - 1)),
    st.tuples(st.just("join"), st.integers(0, GUESTS - 1)),
    st.tuples(st.just("stall"), st.integers(0, GUESTS - 1)),
    st.tuples(st.just("drain"), st.integers(0, GUESTS - 1)),
    st.tuples(st.just("deaf")),
    st.tuples(st.just("flood"), st.integers(1, 2)),
    st.tuples(st.just("restart")),
)


class Story:
    def __init__(self) -> None:
        self.engine = Engine()
        self.lanes = Lanes(self.engine.image(), Counters())
        self.guests = [Guest() for _ in range(GUESTS)]
        self.deaf = False
        self.held: set[str] = set()
        steady = self.guests[0]
        steady.join(self.lanes)

    def publish(self, *entries: Any) -> None:
        if self.deaf:
            return
        if not self.lanes.take(self.engine.batch(*entries)):
            self.lanes.heal(self.engine.image())

    def cut(self, bytes_max: int | None = None) -> None:
        before = self.lanes.mark
        data = self.lanes.cut(self.held, lambda comments, rest: bytes_max)
        if not data:
            return
        for guest in self.guests:
            if not guest.away:
                if guest.mark is None:
                    guest.read(data)
                elif guest.mark == "stalling":
                    guest.mark = before

    def step(self, step: tuple[Any, ...]) -> None:
        match step:
            case ("fact", key, value):
                self.publish(self.engine.fact(key, value))
            case ("comment", count):
                self.publish(*[self.engine.comment() for _ in range(count)])
            case ("flood", times):
                for _ in range(times * LOG_MAX // 10):
                    self.publish(*[self.engine.comment() for _ in range(10)])
                    self.publish(*[self.engine.fact("show", n) for n in range(8)])
            case ("state", key, version):
                self.publish(self.engine.state(key, version))
            case ("retract", offset):
                if offset <= self.engine.tops[1]:
                    value = {"comment": offset}
                    self.publish(self.engine.fact("retracted", value, offset))
            case ("cut",):
                self.cut()
            case ("squeeze", bytes_max):
                self.cut(bytes_max)
            case ("hold", keys):
                self.held = keys
            case ("away", n) if n:
                self.guests[n].away = True
            case ("join", n) if self.guests[n].away:
                self.guests[n].join(self.lanes)
            case ("stall", n) if n and not self.guests[n].away and self.guests[n].mark is None:
                self.guests[n].mark = self.lanes.mark
            case ("drain", n):
                self.drain(self.guests[n])
            case ("deaf",):
                self.deaf = not self.deaf
                if not self.deaf:
                    self.lanes.heal(self.engine.image())
            case ("restart",):
                self.engine.epoch += 1
                if not self.deaf:
                    self.lanes.heal(self.engine.image())

    def drain(self, guest: Guest) -> None:
        if not guest.away and guest.mark is not None:
            guest.read(self.lanes.since(guest.mark))
            guest.mark = None

    def end(self) -> None:
        if self.deaf:
            self.step(("deaf",))
        self.held = set()
        self.cut()
        for guest in self.guests:
            self.drain(guest)
            if guest.away:
                guest.join(self.lanes)


@given(st.lists(STEP, max_size=60))
@settings(max_examples=250, deadline=None)
def test_all_views_of_a_room_end_equal_whatever_happened(steps):
    story = Story()
    for step in steps:
        story.step(step)
    story.end()
    image = story.engine.image()
    alive = {entry.offset for entry in image.chat}
    for guest in story.guests:
        view = guest.view
        assert view.facts == image.facts
        assert {key: value[0] for key, value in view.states.items()} == {
            entry.key: entry.version for entry in image.states
        }
        assert view.epoch == image.position.epoch
        assert not alive & set(range(view.chat + 1, image.position.chat + 1))
        assert view.control == image.position.control
        assert view.doubles == 0
        assert view.gaps == 0
        assert {o for o in view.comments if o > image.position.chat - LOG_MAX} <= alive


@given(
    st.lists(
        STEP.filter(lambda step: step[0] not in ("flood", "restart", "stall", "squeeze")),
        max_size=50,
    )
)
@settings(max_examples=200, deadline=None)
def test_who_was_away_for_less_than_the_log_misses_no_comment(steps):
    story = Story()
    for guest in story.guests:
        guest.join(story.lanes)
    for step in steps:
        story.step(step)
    story.end()
    assert story.engine.tops[1] > LOG_MAX or not any(g.view.skipped for g in story.guests)
    if any(guest.view.skipped for guest in story.guests):
        return  # one cut had more than the log holds, and said so
    first = story.guests[0].view
    for guest in story.guests:
        assert guest.renewed or guest.view.comments == first.comments


@given(st.lists(STEP.filter(lambda step: step[0] not in ("flood", "restart", "retract"))))
@settings(max_examples=200, deadline=None)
def test_however_it_is_sampled_counts_add_up_and_what_is_to_be_kept_arrives(steps):
    """Those who read on, who dropped and came back, and who stalled: each knows what it lacks."""
    story = Story()
    for guest in story.guests:
        guest.join(story.lanes)
    said = 0
    for step in steps:
        if step[0] == "comment":
            step = ("comment", min(step[1], LOG_MAX - said))
            said += step[1]
        story.step(step)
    story.end()
    kept = {entry.offset for entry in story.engine.chat if entry.keep}
    for guest in story.guests:
        view = guest.view
        if guest.renewed:
            continue  # more facts than the log holds
        assert kept <= view.comments.keys()
        assert len(view.comments) + view.skipped == view.chat == said
        assert (view.doubles, view.gaps) == (0, 0)


def test_a_held_state_waits_and_goes_out_with_its_newest_value():
    engine = Engine()
    lanes = Lanes(engine.image(), Counters())
    assert lanes.take(engine.batch(engine.state("likes", 1), engine.state("stock", 1)))
    assert unpack_all(lanes.cut({"likes"})) == [[3, "stock", 1, 1]]
    assert lanes.went == {"stock"}
    assert set(lanes.only_states) == {"likes"}
    mark = lanes.mark
    assert lanes.cut({"likes"}) == b""
    assert lanes.take(engine.batch(engine.state("likes", 2)))
    assert unpack_all(lanes.snapshot())[0][1]["states"]["likes"] == [2, 2], "who joins has it"
    assert lanes.since(mark) == b"", "who is caught up gets it with the others"
    assert unpack_all(lanes.cut()) == [[3, "likes", 2, 2]]
    assert unpack_all(lanes.since(mark)) == [[3, "likes", 2, 2]]


def test_a_recovery_has_a_bound_while_comments_are_sampled():
    engine = Engine()
    lanes = Lanes(engine.image(), Counters())
    start = lanes.position
    assert lanes.take(engine.batch(*[engine.comment() for _ in range(20)]))
    lanes.cut()
    assert unpack_all(lanes.recovery(start, 3) or b"") == [
        [6, 6, 6],
        [4, 7, "c7"],
        [6, 6, 13],
        [4, 14, "c14"],
        [6, 5, 19],
        [4, 20, "c20"],
    ]


def test_a_tick_with_more_comments_than_a_frame_may_have_counts_the_oldest():
    engine = Engine()
    lanes = Lanes(engine.image(), Counters())
    guest = Guest()
    guest.join(lanes)
    assert lanes.take(engine.batch(*[engine.comment() for _ in range(300)]))
    guest.read(lanes.cut())
    assert guest.view.skipped == 260
    assert min(guest.view.comments) == 261
    assert guest.view.chat == 300


def test_more_control_than_the_log_holds_is_a_snapshot_for_all():
    engine = Engine()
    lanes = Lanes(engine.image(), Counters())
    guest = Guest()
    guest.join(lanes)
    mark = lanes.mark
    assert lanes.take(engine.batch(*[engine.fact("pin", n) for n in range(700)]))
    guest.read(lanes.cut())
    assert guest.view.facts == {"pin": 699}
    assert unpack_all(lanes.since(mark))[0][0] == 8


@given(st.integers(1, 2**40), st.binary(max_size=10))
def test_a_comments_value_is_cut_out_of_its_bytes(offset, value):
    entry = ChatEntry(offset, pack_chat(offset, msgspec.Raw(msgspec.msgpack.encode(value))))
    assert unpack_all(module._value_of(entry)) == [value]
