"""What may be said: cleaning, length and pace of comments. Pure.

Responsible for turning what somebody typed into what is shown, or refusing it with a reason, and
for the pace of each viewer. Whatnot's lesson decides the pace: a room-wide limit that silently
drops is unfair and looks broken, so the limit is per viewer, says how long to wait, and allows a
burst (three in three seconds is how people talk).
"""

import unicodedata
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from commerce.card_numbers import find_card_number
from live.codes import refuse
from live.messages import ANNOUNCEMENT_CHARS_MAX, TEXT_CHARS_MAX
from realtime.rate_limit import TokenBucket

COMMENTS_PER_S: Final = 1
COMMENT_BURST: Final = 3
TALKERS_MAX: Final = 20_000
"""Viewers whose pace is remembered on a node; the longest silent is forgotten first."""

# Line breaks, tabs and everything invisible that could reorder or hide text. The joiners stay:
# emoji families and several scripts need them.
_KEPT_FORMATS: Final = frozenset("\u200c\u200d")
_BLANKS: Final = frozenset("\u115f\u1160\u2800\u3164\uffa0")


def clean(text: str) -> str:
    """What is shown of what was typed: NFC, no control or invisible characters, single spaces."""
    kept: list[str] = []
    for character in unicodedata.normalize("NFC", text):
        category = unicodedata.category(character)
        if category in ("Cc", "Zl", "Zp", "Zs") or character in _BLANKS:
            kept.append(" ")
        elif category in ("Cs", "Co") or ord(character) & 0xFFFE == 0xFFFE:
            continue  # unassigned ones stay: emoji newer than this Python's tables are among them
        elif category == "Cf" and character not in _KEPT_FORMATS:
            # Tag characters make flags of regions; all other formats are hidden text.
            if 0xE0020 <= ord(character) <= 0xE007F:
                kept.append(character)
        else:
            kept.append(character)
    return " ".join("".join(kept).split())


def comment_text(text: str) -> str:
    """Cleaned, or `Rejected`: comment_empty, comment_too_long, card_number."""
    cleaned = clean(text)
    if not any(character not in _KEPT_FORMATS and not character.isspace() for character in cleaned):
        raise refuse("comment_empty")
    if len(cleaned) > TEXT_CHARS_MAX:
        raise refuse("comment_too_long", limit=TEXT_CHARS_MAX, length=len(cleaned))
    if find_card_number(cleaned):
        raise refuse("card_number", field="text")
    return cleaned


def announcement_text(text: str) -> str:
    """Cleaned (empty takes the line away), or `Rejected`: comment_too_long, card_number."""
    cleaned = clean(text)
    if len(cleaned) > ANNOUNCEMENT_CHARS_MAX:
        raise refuse("comment_too_long", limit=ANNOUNCEMENT_CHARS_MAX, length=len(cleaned))
    if find_card_number(cleaned):
        raise refuse("card_number", field="text")
    return cleaned


class Pace:
    """How fast each viewer may comment on this node. `clock` in milliseconds."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def check(self, viewer: str) -> None:
        """Raises `Rejected` (rate_limited) with the time to wait."""
        bucket = self._buckets.pop(viewer, None)
        if bucket is None:
            bucket = TokenBucket(COMMENTS_PER_S, COMMENT_BURST, self._clock())
        self._buckets[viewer] = bucket
        if len(self._buckets) > TALKERS_MAX:
            self._buckets.popitem(last=False)
        if not bucket.take(self._clock()):
            raise refuse("rate_limited", retry_after_ms=bucket.wait_ms())
