"""The demo's endless playlist: what a player must be able to rely on."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from live.pages import COUNTED_FROM_MS, WINDOW, Loop

LOOP = Loop("init.mp4", (("a", 2.0), ("b", 2.0), ("c", 1.5)))
TOTAL_MS = 5500
instants = st.integers(min_value=COUNTED_FROM_MS + 10 * TOTAL_MS, max_value=2_000_000_000_000)


def number(text: str, tag: str) -> int:
    found = re.search(rf"#EXT-X-{tag}:(\d+)", text)
    assert found is not None
    return int(found.group(1))


def segments(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and not line.startswith("#")]


@given(instants)
def test_a_playlist_has_a_full_window_of_known_segments(now: int) -> None:
    text = LOOP.playlist(now)
    assert len(segments(text)) == WINDOW
    first = number(text, "MEDIA-SEQUENCE")
    names = [LOOP.segments[(first + i) % 3][0] for i in range(WINDOW)]
    assert segments(text) == names


@given(instants, st.integers(min_value=0, max_value=20_000))
def test_a_segment_keeps_its_number_and_date_as_the_window_slides(now: int, later: int) -> None:
    def dated(text: str) -> dict[int, tuple[str, int]]:
        at = number(text, "MEDIA-SEQUENCE")
        seams = number(text, "DISCONTINUITY-SEQUENCE")
        found: dict[int, tuple[str, int]] = {}
        for line in text.splitlines():
            if line == "#EXT-X-DISCONTINUITY":
                seams += 1
            elif line and not line.startswith("#"):
                found[at] = (line, seams)
                at += 1
        return found

    one, two = dated(LOOP.playlist(now)), dated(LOOP.playlist(now + later))
    for at in one.keys() & two.keys():
        assert one[at] == two[at]
    assert max(two) >= max(one)


def test_the_window_ends_before_the_segment_that_is_being_played_into() -> None:
    start = COUNTED_FROM_MS + 100 * TOTAL_MS
    assert segments(LOOP.playlist(start))[-1] == "c"
    assert segments(LOOP.playlist(start + 1999))[-1] == "c"
    assert segments(LOOP.playlist(start + 2000))[-1] == "a"


@pytest.mark.parametrize("after_ms", [0, 2000, 4000])
def test_each_seam_and_each_window_start_carries_the_date(after_ms: int) -> None:
    lines = LOOP.playlist(COUNTED_FROM_MS + 100 * TOTAL_MS + after_ms).splitlines()
    for at, line in enumerate(lines):
        if line == "#EXT-X-DISCONTINUITY":
            assert lines[at + 1].startswith("#EXT-X-PROGRAM-DATE-TIME:")
    first = next(line for line in lines if line.startswith(("#EXT-X-PROGRAM", "#EXTINF")))
    assert first.startswith("#EXT-X-PROGRAM-DATE-TIME:")
