"""From the bytes of a file to rows with known columns, or a refusal of the whole file.

Responsible for size, encoding, separators, quotes and column names. It must not know what a cell
means: `catalog_import` reads the cells. Cheap refusals come first, so that 100,000 rows cost a
fraction of a second: bytes are counted before decoding, rows while reading.

A guess is never made. A file in another encoding or with semicolons could often be read somehow,
with a few prices or letters wrong in a way that nobody notices before the show.
"""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from commerce.errors import Refused

BYTES_MAX: Final = 10 * 1024 * 1024
ROWS_MAX: Final = 50_000
COLUMNS_MAX: Final = 500
CELL_CHARS_MAX: Final = 131_072
"""The csv module's own limit: a quote that is never closed ends there."""
PROBLEMS_MAX: Final = 1_000
"""Wrong rows that are listed; the rest are counted."""

HANDLE: Final = "Handle"
TITLE: Final = "Title"
BODY: Final = "Body (HTML)"
VENDOR: Final = "Vendor"
TYPE: Final = "Type"
TAGS: Final = "Tags"
PUBLISHED: Final = "Published"
STATUS: Final = "Status"
GIFT_CARD: Final = "Gift Card"
OPTION_NAMES: Final = ("Option1 Name", "Option2 Name", "Option3 Name")
OPTION_VALUES: Final = ("Option1 Value", "Option2 Value", "Option3 Value")
SKU: Final = "Variant SKU"
GRAMS: Final = "Variant Grams"
TRACKER: Final = "Variant Inventory Tracker"
QUANTITY: Final = "Variant Inventory Qty"
POLICY: Final = "Variant Inventory Policy"
PRICE: Final = "Variant Price"
COMPARE_AT: Final = "Variant Compare At Price"
BARCODE: Final = "Variant Barcode"
IMAGE: Final = "Image Src"
IMAGE_POSITION: Final = "Image Position"
IMAGE_ALT: Final = "Image Alt Text"
VARIANT_IMAGE: Final = "Variant Image"

REQUIRED: Final = (HANDLE, TITLE, OPTION_NAMES[0], OPTION_VALUES[0], PRICE)
OPTIONAL: Final = (
    *(BODY, VENDOR, TYPE, TAGS, PUBLISHED, STATUS, GIFT_CARD, *OPTION_NAMES[1:]),
    *(*OPTION_VALUES[1:], SKU, GRAMS, TRACKER, QUANTITY, POLICY, COMPARE_AT, BARCODE),
    *(IMAGE, IMAGE_POSITION, IMAGE_ALT, VARIANT_IMAGE),
)
_NEWER_NAMES: Final = MappingProxyType(
    {
        "url handle": HANDLE,
        "description": BODY,
        "published on online store": PUBLISHED,
        "sku": SKU,
        "barcode": BARCODE,
        "price": PRICE,
        "compare-at price": COMPARE_AT,
        "inventory tracker": TRACKER,
        "inventory quantity": QUANTITY,
        "continue selling when out of stock": POLICY,
        "weight value (grams)": GRAMS,
        "product image url": IMAGE,
        "variant image url": VARIANT_IMAGE,
    }
)
"""Shopify's template since 2024 calls them so; the other columns differ in capitals only."""
_KNOWN: Final = MappingProxyType(
    {name.casefold(): name for name in (*REQUIRED, *OPTIONAL)} | dict(_NEWER_NAMES)
)


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one cell or row."""

    line: int
    """Of the file, from 1: where the row begins."""
    column: str
    """Empty: the row as a whole."""
    code: str
    sentence: str


class ImportRefused(Refused):
    """The file is not imported, not a row of it.

    `code` is one of csv_columns, csv_encoding, csv_too_many_rows, too_large, csv_refused;
    `sentence` says it for this file; `problems` are the wrong rows, at most `PROBLEMS_MAX` of
    `total`; `missing` are required columns that the file lacks.
    """

    def __init__(
        self,
        code: str,
        sentence: str,
        *,
        missing: Sequence[str] = (),
        problems: Sequence[Problem] = (),
        total: int | None = None,
    ) -> None:
        super().__init__(code)
        self.code = code
        self.sentence = sentence
        self.missing = tuple(missing)
        self.problems = tuple(problems)
        self.total = len(problems) if total is None else total


@dataclass(frozen=True, slots=True)
class Row:
    """One record of the file."""

    line: int
    cells: list[str]


@dataclass(frozen=True, slots=True)
class Sheet:
    """The columns that are known, by name, and the rows that are not empty."""

    columns: Mapping[str, int]
    rows: list[Row]
    problems: list[Problem]
    """Rows with too few or too many cells: listed with the others."""

    def cell(self, row: Row, column: str) -> str:
        """Trimmed, no-break spaces too; empty where the file has no such column."""
        at = self.columns.get(column)
        return "" if at is None else row.cells[at].strip()


def read_sheet(data: bytes) -> Sheet:
    """Raises `ImportRefused`. Reads 50,000 rows of 47 columns in about 0.5 s."""
    if len(data) > BYTES_MAX:
        raise ImportRefused("too_large", f"A product file has at most {BYTES_MAX:,} bytes.")
    records = _records(_decoded(data))
    header = next(records, Row(1, []))
    columns = _columns(header.cells)
    rows: list[Row] = []
    problems: list[Problem] = []
    for record in records:
        if not any(cell and not cell.isspace() for cell in record.cells):
            continue
        if len(rows) + len(problems) == ROWS_MAX:
            raise ImportRefused(
                "csv_too_many_rows", f"A product file has at most {ROWS_MAX:,} rows."
            )
        if len(record.cells) < len(header.cells) or any(record.cells[len(header.cells) :]):
            sentence = (
                f"This row has {len(record.cells)} cells, the first line has {len(header.cells)}."
            )
            problems.append(Problem(record.line, "", "cells", sentence))
        else:
            rows.append(record)
    if not rows and not problems:
        raise ImportRefused("csv_refused", "This file has no rows below its first line.")
    return Sheet(columns, rows, problems)


def _decoded(data: bytes) -> str:
    if data[:4] == b"PK\x03\x04":
        raise ImportRefused("csv_encoding", "This is a spreadsheet; save it as CSV in UTF-8.")
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise ImportRefused("csv_encoding", "This file is UTF-16; save it as CSV in UTF-8.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as wrong:
        line = data.count(b"\n", 0, wrong.start) + 1
    sentence = f"This file is not UTF-8: line {line} cannot be read. Save it as CSV in UTF-8."
    raise ImportRefused("csv_encoding", sentence)


def _records(text: str) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    line = 1
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as wrong:
            if "limit" in str(wrong):
                code, sentence = "too_long", "A cell is far too long; is its quote closed?"
            else:
                code, sentence = "quotes", "The quotes of this row do not match."
            problem = Problem(line, "", code, sentence)
            refusal = ImportRefused("csv_refused", f"Line {line}: {sentence}", problems=[problem])
            raise refusal from None
        yield Row(line, cells)
        line = reader.line_num + 1


def _columns(header: list[str]) -> Mapping[str, int]:
    if len(header) > COLUMNS_MAX:
        raise ImportRefused("csv_columns", f"A product file has at most {COLUMNS_MAX} columns.")
    columns: dict[str, int] = {}
    twice: list[str] = []
    for at, cell in enumerate(header):
        name = _KNOWN.get(" ".join(cell.split()).casefold())
        if name is None:
            continue
        if name in columns:
            twice.append(name)
        columns.setdefault(name, at)
    if twice:
        raise ImportRefused("csv_columns", f"This column stands twice: {', '.join(twice)}.")
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        sentence = _why_missing(header) + f" Missing: {', '.join(missing)}."
        raise ImportRefused("csv_columns", sentence, missing=missing)
    return MappingProxyType(columns)


def _why_missing(header: list[str]) -> str:
    line = ",".join(header)
    if not line.strip():
        return "This file is empty."
    if line.lstrip()[:1] in ("{", "[", "<"):
        return "This is no CSV file; export the products as CSV."
    for separator, name in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
        if line.count(separator) > line.count(","):
            return f"The columns of this file are separated by {name}; export it with commas."
    return "This file lacks columns that a Shopify product file has in its first line."
