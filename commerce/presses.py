"""A press before anybody is asked: is it well formed, and what is it the same as.

Responsible for the limits of a press, for summing its lines (a SKU named twice is one line of the
sum, before anything is checked) and for its fingerprint. Pure.
"""

from dataclasses import replace
from hashlib import sha256
from typing import Final

from commerce.errors import BadQuantity, UnknownDrop, UnknownSku
from commerce.stock import LINES_MAX, QUANTITY_MAX, Line, Press

ID_MAX: Final = 64
"""Characters of a rid, viewer, drop or SKU: the width of the record's columns."""


def normal(press: Press) -> Press:
    """The same press with its lines summed and sorted by SKU.

    Raises BadQuantity (none, below one, above QUANTITY_MAX of a SKU, more than LINES_MAX lines),
    UnknownSku and UnknownDrop for names that nothing can have, ValueError for such a rid or viewer.
    """
    if not 1 <= len(press.lines) <= LINES_MAX:
        raise BadQuantity(press.lines[0].sku if press.lines else "")
    if not (_name(press.rid) and _name(press.viewer)):
        raise ValueError("a rid and a viewer have 1 to 64 characters, none of them control")
    if not _name(press.drop):
        raise UnknownDrop(press.drop[:ID_MAX])
    if len(press.lines) == 1:  # nearly all, and nothing to sum
        line = press.lines[0]
        if not _name(line.sku):
            raise UnknownSku(line.sku[:ID_MAX])
        if not 1 <= line.quantity <= QUANTITY_MAX:
            raise BadQuantity(line.sku)
        return press
    sums: dict[str, int] = {}
    for line in press.lines:
        if not _name(line.sku):
            raise UnknownSku(line.sku[:ID_MAX])
        if not 1 <= line.quantity <= QUANTITY_MAX:
            raise BadQuantity(line.sku)
        sums[line.sku] = sums.get(line.sku, 0) + line.quantity
        if sums[line.sku] > QUANTITY_MAX:
            raise BadQuantity(line.sku)
    lines = tuple(Line(sku, quantity) for sku, quantity in sorted(sums.items()))
    if lines == press.lines:
        return press
    return replace(press, lines=lines)


def fingerprint(press: Press) -> str:
    """Viewer, drop and lines of a normal press. The same rid must come with the same one."""
    text = "\n".join(
        [press.viewer, press.drop, *(f"{line.sku}\t{line.quantity}" for line in press.lines)]
    )
    return sha256(text.encode()).hexdigest()[:32]


def _name(text: str) -> bool:
    """No control characters: PostgreSQL stores no NUL, and the gate's keys are joined by one."""
    if not 0 < len(text) <= ID_MAX:
        return False
    return text.isprintable() or all(character >= " " for character in text)
