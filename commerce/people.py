"""People: what a shop may keep about somebody, and the promise that it can be forgotten.

Responsible for the words: a person's detail (name, address, how to reach them), their erasure, and
the list of erasures that outlives every copy of the database. It must not know tables or ciphers.

An erasure is written to that list first and carried out second: whoever dies in between carries it
out at the next start, and so does whoever restores an old copy.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from commerce.errors import Refused

LIST_BYTES_MAX: Final = 256 * 1024 * 1024
"""More than a million erasures; a longer list is somebody else's file."""


class OrdersUnderWay(Refused):
    """Something is being paid, or ordered and not yet delivered: the shop needs the address."""

    def __init__(self, holds: int, orders: int) -> None:
        super().__init__(holds, orders)
        self.holds = holds
        self.orders = orders


class MasterLost(Exception):
    """What is stored here was sealed under another master than those that were given."""


@dataclass(frozen=True, slots=True)
class Erasure:
    """Somebody was forgotten; what was kept before `at` (milliseconds since 1970) is gone."""

    person: str
    at: int


class People(Protocol):
    """All methods raise Unavailable."""

    async def export(self, person: str) -> dict[str, Any]:
        """Everything that is held about a person, by table."""
        ...

    async def erase(self, person: str, now: int, *, force: bool = False) -> None:
        """Gives back what they hold and forgets a person. Raises OrdersUnderWay unless `force`."""
        ...


class ErasureList:
    """The list, as a file of JSON lines outside the database. One process writes it at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, erasure: Erasure) -> None:
        """On disk when this returns."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        line = json.dumps({"person": erasure.person, "at": erasure.at}) + "\n"
        handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(handle, line.encode())
            os.fsync(handle)
        finally:
            os.close(handle)

    def read(self) -> list[Erasure]:
        """All, oldest first. A line that was cut off by a power failure is left out."""
        try:
            if self._path.stat().st_size > LIST_BYTES_MAX:
                raise ValueError(f"{self._path} is too large to be a list of erasures")
            lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return []
        return [found for line in lines if (found := _read(line)) is not None]


def _read(line: str) -> Erasure | None:
    try:
        row = json.loads(line)
        return Erasure(str(row["person"]), int(row["at"]))
    except (ValueError, KeyError, TypeError):
        return None


def newest(erasures: Iterable[Erasure]) -> Mapping[str, int]:
    """By person when they were last erased."""
    found: dict[str, int] = {}
    for erasure in erasures:
        found[erasure.person] = max(erasure.at, found.get(erasure.person, 0))
    return found
