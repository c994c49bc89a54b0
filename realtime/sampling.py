"""Which comments of a frame go out when not all can, and how the others are counted. Pure.

It must not know why there is a limit. The newest ones are chosen, as one run: people answer each
other, and a run of talk can be followed where every fourth line of it cannot. Comments to be kept
(of those who run the show) go out wherever they stand. Each gap is told in its place by a
`[6, n, offset]`, so that whoever reads the frame knows how many are missing and holds the right
position afterwards: offsets stay a line without holes for who adds up.
"""

from collections.abc import Sequence
from typing import Final

from realtime.broker import ChatEntry
from realtime.wire import pack_skipped

LEAST: Final = 1
"""The newest comment goes out however small the budget: a chat that is dead looks broken."""


def sample(
    entries: Sequence[ChatEntry],
    *,
    missing: int,
    upto: int,
    most: int,
    bytes_max: int | None = None,
) -> tuple[list[bytes], int]:
    """(bytes on the wire, how many were left out) for the comments up to offset `upto`.

    `missing` older ones are not at hand; they count as left out. At most `most` comments and
    `bytes_max` bytes, except that those to be kept always go, and the newest `LEAST`.
    """
    chosen = [entry.keep for entry in entries]
    room = most - sum(chosen)
    left = None if bytes_max is None else bytes_max - sum(len(e.wire) for e in entries if e.keep)
    taken = 0
    for at in range(len(entries) - 1, -1, -1):
        if chosen[at]:
            continue
        size = len(entries[at].wire)
        if taken >= LEAST and (taken >= room or (left is not None and size > left)):
            break
        chosen[at] = True
        taken += 1
        if left is not None:
            left -= size
    out: list[bytes] = []
    gap, total = missing, 0
    for entry, goes in zip(entries, chosen, strict=True):
        if not goes:
            gap += 1
            continue
        if gap:
            out.append(pack_skipped(gap, entry.offset - 1))
            total += gap
            gap = 0
        out.append(entry.wire)
    if gap:
        out.append(pack_skipped(gap, upto))
        total += gap
    return out, total
