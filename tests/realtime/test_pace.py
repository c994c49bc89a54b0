"""The pace, for any load: bounded, monotone, and too lazy to flap."""

from hypothesis import given
from hypothesis import strategies as st

from realtime.pace import (
    BURST_S,
    COST_FIRST_S,
    HOLD_S,
    SAMPLING,
    SHARE,
    STRETCH_MAX,
    TICK_MAX_MS,
    TICK_MIN_MS,
    TICKS_MS,
    UP,
    Budget,
    NodePace,
    Notches,
    Pace,
)

COSTS_S = st.floats(0, 0.01)
MEMBERS = st.integers(0, 200_000)
PAUSES_S = st.floats(0.001, 20)


def settled(cost_s: float, members: int, *, ticks: int = 60) -> Pace:
    """A room whose fan-outs cost the same for a while, on a node without other rooms."""
    pace = Pace(NodePace())
    for n in range(ticks):
        pace.spent(cost_s * members, members, members, now_s=n * 2.0)
    return pace


@given(st.lists(st.tuples(COSTS_S, MEMBERS, PAUSES_S), max_size=60))
def test_tick_and_step_stay_within_their_bounds_whatever_is_measured(story):
    node = NodePace()
    pace = Pace(node)
    now = 0.0
    for cost, members, pause in story:
        now += pause
        pace.spent(cost * members, members, members, now)
        assert TICK_MIN_MS <= pace.tick_ms <= TICK_MAX_MS
        assert 0 <= pace.step <= SAMPLING
        assert 1.0 <= node.stretch <= STRETCH_MAX


@given(COSTS_S, COSTS_S, MEMBERS, MEMBERS)
def test_more_cost_or_more_members_never_shorten_the_tick_or_lower_the_step(a, b, m, n):
    less = settled(min(a, b), min(m, n))
    more = settled(max(a, b), max(m, n))
    assert less.tick_ms <= more.tick_ms
    assert less.step <= more.step


def test_the_tick_is_what_the_measured_cost_asks_for():
    assert settled(10e-6, 100).tick_ms == TICK_MIN_MS
    assert settled(9e-6, 2_000).tick_ms == 80
    assert settled(9e-6, 15_000).tick_ms == 640
    assert settled(9e-6, 100_000).tick_ms == TICK_MAX_MS
    assert Pace(NodePace(), tick_ms=100).tick_ms == 100
    assert COST_FIRST_S * 2_000 / SHARE < 0.1


def test_the_ladder_is_climbed_as_the_tick_runs_out_of_length():
    assert [settled(10e-6, size).step for size in (2_000, 13_000, 20_000, 30_000)] == [0, 1, 2, 3]


@given(
    st.lists(st.floats(0, 3), min_size=1, max_size=80), st.lists(PAUSES_S, min_size=80, max_size=80)
)
def test_a_level_rises_at_once_and_falls_one_at_a_time_after_the_hold(needs, pauses):
    notches = Notches(UP)
    now, fell = 0.0, -HOLD_S
    for need, pause in zip(needs, pauses, strict=False):
        now += pause
        before = notches.level
        changed = notches.move(need, now)
        assert changed == (notches.level != before)
        assert notches.level >= sum(need >= threshold for threshold in UP)
        assert notches.level >= before - 1
        if notches.level < before:
            assert now - fell >= HOLD_S
            fell = now
        elif notches.level > before:
            fell = now - HOLD_S


@given(st.lists(st.floats(0.72, 0.99), min_size=2, max_size=200), st.sampled_from(range(len(UP))))
def test_a_need_that_wavers_around_a_threshold_changes_the_level_at_most_once(shares, at):
    notches = Notches(UP)
    notches.move(UP[at], 0.0)
    start, changes = notches.level, 0
    for n, share in enumerate(shares):
        changes += notches.move(UP[at] * share, 1.0 + n)
    assert (notches.level, changes) == (start, 0)


def test_a_single_slow_fan_out_does_not_change_the_step():
    pace = settled(9e-6, 2_000)
    pace.spent(0.020 * 4, 2_000, 2_000, 200.0)
    assert pace.step == 0


def test_rooms_of_one_node_stretch_each_other_and_recover():
    node = NodePace()
    rooms = [Pace(node) for _ in range(8)]
    now = 0.0
    for _ in range(3000):
        for room in rooms:
            room.spent(0.02, 2_000, 2_000, now)
            now += 0.02
    assert node.stretch > 4
    assert rooms[0].tick_ms == TICKS_MS[-1]
    for _ in range(100):
        now += 1.0
        rooms[0].spent(0.001, 100, 100, now)
    assert node.stretch == 1.0
    assert rooms[0].tick_ms == TICK_MIN_MS


# The budget.


@given(
    st.integers(1, 10**9),
    st.lists(st.tuples(st.floats(0, 5), st.integers(0, 10**9)), max_size=50),
)
def test_a_budget_never_holds_more_than_its_burst_nor_owes_more(bytes_per_s, story):
    budget = Budget(bytes_per_s)
    now = 0.0
    for pause, size in story:
        now += pause
        budget.spend(size, now)
        assert abs(budget.left(now)) <= bytes_per_s * BURST_S
    assert budget.left(now + 3 * BURST_S) == bytes_per_s * BURST_S


@given(st.integers(1, 5_000), st.integers(1, 4_000), st.integers(1, 400), st.integers(0, 5_000))
def test_comments_get_what_the_budget_leaves_and_the_step_says_so(members, kbytes, ticks, other):
    """What went out never exceeds burst and budget, unless what is never left out does."""
    node = NodePace(bytes_per_s=kbytes * 2_000, room_bytes_per_s=kbytes * 1_000)
    pace = Pace(node)
    wanted, total, now = 3_000, 0, 0.0
    for _ in range(ticks):
        now += 0.05
        allowed = pace.comments_bytes(wanted, other, members, now)
        if allowed is None:
            assert wanted + other <= node.room_bytes_per_s / members
        else:
            assert pace.step == SAMPLING
            assert 0 <= allowed < wanted
        size = (wanted if allowed is None else allowed) + other
        pace.sent(size, members, now)
        total += size * members
    if other == 0:
        assert total <= node.room_bytes_per_s * (now + BURST_S) + 1


def test_the_step_falls_after_the_flood_and_not_before():
    pace = Pace(NodePace(bytes_per_s=10**6, room_bytes_per_s=10**6))
    assert pace.comments_bytes(5_000, 0, 1_000, 0.0) == 1_000
    assert pace.step == SAMPLING
    steps = []
    for n in range(1, 40):
        pace.look(1_000, n * 1.0)
        steps.append(pace.step)
    assert steps[:4] == [SAMPLING] * 4
    assert steps == sorted(steps, reverse=True)
    assert steps[-1] == 0


# What becomes rare.


def test_likes_then_the_viewer_count_become_rare_and_nothing_else_does():
    pace = Pace(NodePace())
    both = {"likes", "viewers", "stock:a", "poll"}
    pace.went(both, 100.0)
    assert pace.held(100.0) == {}
    pace.spent(10e-6 * 13_000, 13_000, 13_000, 100.0)
    assert pace.step == 1
    assert pace.held(100.1) == {"likes": 102.0}
    assert pace.held(102.0) == {}
    for n in range(20):
        pace.spent(10e-6 * 20_000, 20_000, 20_000, 100.0 + n / 100)
    assert pace.step == 2
    assert pace.held(100.2) == {"likes": 102.0, "viewers": 110.0}


def test_a_state_that_never_went_is_not_held():
    assert settled(10e-6, 100_000).held(1000.0) == {}
