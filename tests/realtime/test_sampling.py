"""Sampling, for any comments and any limit: nothing unsaid, nothing of the hosts lost."""

from hypothesis import given
from hypothesis import strategies as st

from realtime.broker import ChatEntry
from realtime.sampling import LEAST, sample
from realtime.wire import pack_chat
from tests.realtime.kit import View, unpack_all

COMMENTS = st.lists(
    st.tuples(st.booleans(), st.integers(1, 300), st.integers(1, 3)), min_size=0, max_size=60
)


def entries_of(comments: list[tuple[bool, int, int]], missing: int) -> list[ChatEntry]:
    """(keep, size, step to its offset): a step above 1 is a comment that was retracted."""
    entries, offset = [], missing
    for keep, size, step in comments:
        offset += step
        entries.append(ChatEntry(offset, pack_chat(offset, "x" * size), keep))
    return entries


@given(COMMENTS, st.integers(0, 50), st.integers(0, 80), st.none() | st.integers(0, 5_000))
def test_counts_add_up_positions_end_right_and_kept_ones_are_never_lost(
    comments, missing, most, bytes_max
):
    entries = entries_of(comments, missing)
    upto = entries[-1].offset if entries else missing
    wires, left_out = sample(entries, missing=missing, upto=upto, most=most, bytes_max=bytes_max)
    view = View()
    for push in unpack_all(b"".join(wires)):
        assert push[0] != 6 or push[1] > 0
        view.apply(push)
    assert view.doubles == 0
    assert view.chat == upto
    assert view.skipped == left_out
    assert len(view.comments) + left_out == len(entries) + missing
    assert {entry.offset for entry in entries if entry.keep} <= view.comments.keys()


@given(COMMENTS, st.integers(0, 80), st.integers(0, 5_000))
def test_the_chosen_ones_are_the_newest_and_fit(comments, most, bytes_max):
    entries = entries_of(comments, 0)
    upto = entries[-1].offset if entries else 0
    wires, _ = sample(entries, missing=0, upto=upto, most=most, bytes_max=bytes_max)
    there = {push[1] for push in unpack_all(b"".join(wires)) if push[0] == 4}
    others = [entry for entry in entries if not entry.keep]
    chosen = [entry for entry in others if entry.offset in there]
    assert chosen == others[len(others) - len(chosen) :], "one run, up to the newest"
    assert len(chosen) >= min(LEAST, len(others))
    if len(chosen) > LEAST:
        assert len(there) <= most
        assert sum(len(entry.wire) for entry in entries if entry.offset in there) <= bytes_max


def test_a_gap_is_told_in_its_place():
    entries = [ChatEntry(n, pack_chat(n, n), keep=n in (2, 5)) for n in range(1, 9)]
    wires, left_out = sample(entries, missing=0, upto=8, most=4)
    assert unpack_all(b"".join(wires)) == [
        [6, 1, 1],
        [4, 2, 2],
        [6, 2, 4],
        [4, 5, 5],
        [6, 1, 6],
        [4, 7, 7],
        [4, 8, 8],
    ]
    assert left_out == 4
