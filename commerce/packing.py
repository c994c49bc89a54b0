"""The words of a shop's daily work: parcels to pack, wishes to answer. Types only; no engine.

Responsible for what a packing list says. A `Parcel` carries the address, so whoever reads it must
be allowed to: it is for hosts, and never logged.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

PARCELS_MAX: Final = 500
LOW_MAX: Final = 500
WAITING_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class PackLine:
    """So many units of one line that are still in the shop."""

    position: int
    sku: str
    title: str
    quantity: int


@dataclass(frozen=True, slots=True)
class Parcel:
    """What is to be packed for one paid order. `customer` is None if it was erased."""

    order: str
    placed_at: int
    lines: tuple[PackLine, ...]
    customer: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Waiting:
    """Something that a buyer asked for and that waits for the host. `kind`: refund or return."""

    kind: str
    id: str
    order: str | None
    state: str
    at: int


@dataclass(frozen=True, slots=True)
class ParcelPage:
    """Oldest order first; `after` continues the list, None: it is at its end."""

    parcels: tuple[Parcel, ...]
    after: str | None
