"""What may be said, how it is shown, and how fast."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from live.chat import COMMENT_BURST, Pace, announcement_text, clean, comment_text
from live.messages import TEXT_CHARS_MAX
from realtime.errors import Rejected


def code_of(text: str) -> str:
    with pytest.raises(Rejected) as refused:
        comment_text(text)
    return refused.value.code


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("  hello \n\t world  ", "hello world"),
        ("cafe\u0301", "café"),
        ("right\u202eto left", "rightto left"),
        ("zero\u200bwidth\ufeff", "zerowidth"),
        ("👩‍👩‍👧 family", "👩‍👩‍👧 family"),
        ("🫨 new emoji", "🫨 new emoji"),
        ("🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f", None),
        ("нейросеть 你好 السلام", "нейросеть 你好 السلام"),
        ("lone \ud800 surrogate", "lone surrogate"),
    ],
)
def test_what_is_shown_is_what_a_person_can_see(typed: str, shown: str | None) -> None:
    assert clean(typed) == (typed if shown is None else shown)


@pytest.mark.parametrize("nothing", ["", "   ", "\u200b\u200d", "\u3164", "\u2800\u2800", "\n\t"])
def test_a_comment_of_nothing_visible_is_empty(nothing: str) -> None:
    assert code_of(nothing) == "comment_empty"


def test_length_is_counted_after_cleaning() -> None:
    assert len(comment_text("x" * TEXT_CHARS_MAX + "   \u200b")) == TEXT_CHARS_MAX
    assert code_of("x" * (TEXT_CHARS_MAX + 1)) == "comment_too_long"


def test_a_card_number_is_refused_and_not_repeated() -> None:
    with pytest.raises(Rejected) as refused:
        comment_text("take mine 4242 4242 4242 4242 please")
    assert refused.value.code == "card_number"
    assert "4242" not in str(refused.value) + repr(refused.value.details)


def test_times_prices_and_barcodes_may_be_said() -> None:
    for text in ("it is 20261122081554 now", "4006381333931 is the barcode", "call 0151 23456789"):
        assert comment_text(text) == text


def test_an_empty_announcement_takes_the_line_away() -> None:
    assert announcement_text("  ") == ""


@given(st.text())
def test_cleaning_twice_changes_nothing_more(text: str) -> None:
    once = clean(text)
    assert clean(once) == once
    assert not any(ord(character) < 32 for character in once)


def test_hostile_strings_are_cleaned_or_refused(shared_data: Path) -> None:
    for text in json.loads((shared_data / "hostile" / "blns.json").read_text()):
        try:
            shown = comment_text(text)
        except Rejected:
            continue
        assert shown.encode()
        assert len(shown) <= TEXT_CHARS_MAX


def test_a_real_chat_is_hardly_ever_refused(shared_data: Path) -> None:
    refused: dict[str, int] = {}
    said = 0
    for name in ("premiere-en", "launch-mixed", "danmaku-zh"):
        for line in (shared_data / "chat" / f"{name}.jsonl").read_text().splitlines():
            said += 1
            try:
                comment_text(json.loads(line)["text"])
            except Rejected as wrong:
                refused[wrong.code] = refused.get(wrong.code, 0) + 1
    assert said > 15_000
    assert refused.get("card_number", 0) == 0
    assert sum(refused.values()) < said / 100, refused


def test_a_burst_is_allowed_then_each_viewer_waits_for_themselves() -> None:
    now = [0]
    pace = Pace(lambda: now[0])
    for _ in range(COMMENT_BURST):
        pace.check("ada")
    with pytest.raises(Rejected) as refused:
        pace.check("ada")
    assert refused.value.code == "rate_limited"
    assert refused.value.retry_after_ms == 1000
    pace.check("bob")
    now[0] = 1000
    pace.check("ada")
