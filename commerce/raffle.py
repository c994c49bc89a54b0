"""Raffles: who wins is a function of a seed and of who entered, and anybody can recompute it.

Responsible for the three formulas. Pure. Before entries open, SHA-256 of the seed is published;
after they close the seed is. So the shop cannot choose another seed once it knows who entered,
and who enters cannot know the seed. (Whoever runs the server knows it from the beginning and could
enter with ids of their choice; no server that draws alone can prove that it did not.)

The lots order all entries: the first get the units, who does not pay in time is followed by the
next. That is the wait list (`waiting`), which begins in this order instead of that of arrival.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256

from commerce.stock import Drop


@dataclass(frozen=True, slots=True)
class Draw:
    """A raffle as anybody may see it. `entries`: ids, by rank once it is drawn, else none."""

    drop: Drop
    entered: int
    entries: Sequence[str]

    @property
    def right(self) -> bool:
        """It is drawn, with the seed that was promised, in the order that follows from it."""
        raffle = self.drop.raffle
        if raffle is None or raffle.seed is None:
            return False
        promised = commitment(raffle.seed) == raffle.seed_sha
        return promised and list(self.entries) == ranking(raffle.seed, self.entries)


def commitment(seed: str) -> str:
    """What is published before: SHA-256 of the seed's 32 bytes. Both as lower-case hex."""
    return sha256(bytes.fromhex(seed)).hexdigest()


def lot(seed: str, entry: str) -> str:
    """An entry's lot: SHA-256 of the seed's bytes followed by the entry's id as UTF-8, as hex."""
    return sha256(bytes.fromhex(seed) + entry.encode()).hexdigest()


def ranking(seed: str, entries: Iterable[str]) -> list[str]:
    """The entries by rising lot, the first to be served first."""
    return sorted(entries, key=lambda entry: (lot(seed, entry), entry))
