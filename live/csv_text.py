"""Rows of CSV that a spreadsheet opens without running anything.

Responsible for quoting (RFC 4180) and for the formula guard: a cell that begins like a formula gets
an apostrophe, because titles, carriers and addresses are written by strangers and a spreadsheet
would carry out what begins with = + - or @. Numbers of ours never begin so. It must not know what
the rows mean.
"""

import csv
import io
from collections.abc import Sequence
from typing import Final

FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What a cell must not begin with; also the full-width forms that some programs accept."""
BOM: Final = "\ufeff"
"""At the beginning of a file: without it a common spreadsheet reads UTF-8 as something else."""


def guarded(cell: object) -> str:
    """The cell as text that is never a formula."""
    if isinstance(cell, int):
        return str(cell)
    text = str(cell)
    return f"'{text}" if text.lstrip(" ").startswith(FORMULA) or text.startswith(FORMULA) else text


def row(cells: Sequence[object]) -> str:
    """One line with its line end."""
    buffer = io.StringIO()
    csv.writer(buffer).writerow([guarded(cell) for cell in cells])
    return buffer.getvalue()
