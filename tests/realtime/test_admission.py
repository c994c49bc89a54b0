"""The pace of joins as arithmetic: smoothed, refused with a time, spread, bounded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.admission import (
    ADDRESSES_MAX,
    HINT_MAX_MS,
    WAIT_MAX_MS,
    Admission,
    JoinLimits,
    Schedule,
    address_key,
)

NOW = 1_700_000_000_000


def admission(room: int = 10, address: int = 2) -> Admission:
    return Admission(connections_max=3, limits=JoinLimits(room, address))


def test_a_burst_goes_through_then_joins_wait_then_they_are_refused() -> None:
    node = admission(room=10)
    verdicts = [node.join("s", "127.0.0.1", NOW) for _ in range(40)]
    assert [one.wait_ms for one in verdicts[:10]] == [0] * 10
    waiting = verdicts[10:30]
    assert all(one.admitted for one in waiting)
    assert [one.wait_ms for one in waiting] == [100 * n for n in range(1, 21)]
    assert waiting[-1].wait_ms == WAIT_MAX_MS
    refused = verdicts[30:]
    assert not any(one.admitted for one in refused)
    times = [one.wait_ms for one in refused]
    assert times == sorted(set(times)), "each is told another time"
    assert (node.waited, node.refused) == (20, 10)


def test_a_storm_that_does_as_it_is_told_comes_in_at_the_pace_and_nobody_is_told_twice() -> None:
    node = Admission(connections_max=1, limits=JoinLimits(500, 20))
    back: list[int] = []
    for _ in range(15_000):
        verdict = node.join("s", "127.0.0.1", NOW)
        if not verdict.admitted:
            back.append(verdict.wait_ms)
    second = [node.join("s", "127.0.0.1", NOW + wait) for wait in sorted(back)]
    assert all(verdict.admitted for verdict in second)
    assert max(back) <= 15_000 / 500 * 1000


def test_one_address_is_held_back_and_others_are_not() -> None:
    node = admission(room=1000, address=2)
    assert all(node.join("s", "203.0.113.9", NOW).wait_ms == 0 for _ in range(10))
    assert node.join("s", "203.0.113.9", NOW).wait_ms == 500
    assert node.join("s", "203.0.113.10", NOW).wait_ms == 0
    assert node.join("s", "203.0.113.9", NOW + 60_000).wait_ms == 0


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("127.0.0.1", ""),
        ("::1", ""),
        ("::ffff:127.0.0.1", ""),
        ("203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", "?"),
        ("unknown", "?"),
        ("1" * 10_000, "?"),
    ],
)
def test_addresses_count_as_their_owner(address: str, key: str) -> None:
    assert address_key(address) == key


def test_without_limits_nobody_waits_and_a_full_node_is_full_all_the_same() -> None:
    node = Admission(connections_max=3, limits=None)
    assert all(node.join("s", "203.0.113.9", NOW).wait_ms == 0 for _ in range(5_000))
    assert [node.full(n) for n in (2, 3, 4)] == [False, True, True]
    assert node.turned_away == 2


def test_addresses_are_forgotten_and_a_flood_of_them_shares_one_pace() -> None:
    node = admission(room=1_000_000, address=1)
    for n in range(ADDRESSES_MAX + 50):
        node.join("s", f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}", NOW)
    assert len(node._addresses) == ADDRESSES_MAX
    strangers = [node.join("s", f"11.0.0.{n}", NOW).wait_ms for n in range(5)]
    assert strangers[-1] > 0, "those beyond the table share a pace"
    node.join("s", "12.0.0.1", NOW + 3_600_000)
    assert len(node._addresses) <= 3


@given(
    st.integers(1, 2000),
    st.integers(1, 500),
    st.lists(st.tuples(st.integers(0, 3000), st.booleans()), max_size=300),
)
def test_never_more_than_the_pace_and_hints_are_bounded(
    per_s: int, burst: int, steps: list[tuple[int, bool]]
) -> None:
    schedule = Schedule(per_s, burst)
    now, starts = NOW, []
    for passed, refuse in steps:
        now += passed
        if refuse:
            assert 1 <= schedule.later_ms(now) <= HINT_MAX_MS
        else:
            starts.append(now + schedule.wait_ms(now))
            schedule.take(now)
    for first, at in enumerate(starts):
        for last in range(first, len(starts)):
            span_ms = starts[last] - at
            assert last - first <= burst + span_ms * (per_s + 1) / 1000 + 1
