"""A Shopify product file, read: from rows to products, or every wrong row with its reason.

Responsible for the meaning of the columns. Pure: no database, no clock, and slow at the limit (3 s
for 50,000 rows), so a server calls `parse_shopify_csv` in a thread. What the products change in the
shop is planned by `catalog_plan` when they meet it.

How Shopify's format is read here:
* Rows with one Handle are one product, wherever they stand. The first carries the product's fields;
  a row with an option value, a price or a SKU is a variant; a row with only a picture is a picture.
* Option names stand in the first row. "Title" with "Default Title" means: no options.
* An absent column leaves what the shop has, an empty cell empties it (as Shopify does it).
* Stock: units are counted here for every variant, because two buyers must never get one unit. So
  "Variant Inventory Qty" is the number of units of a new SKU, blank is none, whether or not Shopify
  tracked it (the tracker is blank in nearly every row of Shopify's own samples, with quantities
  that are meant). A variant that Shopify does not count and that has no quantity would be sold
  without end there; here it begins with 0 and the report says so. "continue" (sell what is not
  there) is not honoured, and the report says so. Less than nothing is refused.
* Published is false for drafts, archived products and gift cards (which are no goods to hold).
* A cell that begins with = or + is text like any other; whoever exports must quote it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_UP, Decimal
from typing import Final

from commerce import catalog_csv as names
from commerce import catalog_rules as rules
from commerce.catalog import BadProduct, Image
from commerce.catalog_csv import PROBLEMS_MAX, ImportRefused, Problem, Row, Sheet, read_sheet
from commerce.money import BadAmount, currency_exponent, parse_amount

UNITS_MAX: Final = 1_000_000
"""Units of one SKU that a file may bring in."""

_INTEGER: Final = re.compile(r"(-?)([0-9]{1,15})(?:\.0*)?")
_DECIMAL: Final = re.compile(r"[0-9]{1,15}(?:\.[0-9]{0,20})?")
_NO: Final = frozenset({"false", "no", "0"})
_YES: Final = frozenset({"", "true", "yes", "1"})


@dataclass(frozen=True, slots=True)
class ParsedSku:
    """One variant as the file has it."""

    line: int
    sku: str
    """Empty: to be derived when it is known which are taken."""
    values: tuple[str, ...]
    """One for each option of the product."""
    amount: int
    compare_at: int | None
    barcode: str
    image_url: str
    grams: int
    units: int
    notes: tuple[str, ...]
    """Codes of `catalog_plan.NOTES`."""


@dataclass(frozen=True, slots=True)
class ParsedProduct:
    """One product as the file has it; texts trimmed, the description sanitised."""

    line: int
    handle: str
    title: str
    description_html: str
    vendor: str
    kind: str
    tags: tuple[str, ...]
    options: tuple[str, ...]
    published: bool
    images: tuple[Image, ...]
    skus: tuple[ParsedSku, ...]


@dataclass(frozen=True, slots=True)
class ParsedFile:
    """A file in which every row is right."""

    currency: str
    columns: frozenset[str]
    """Those of the known ones that it has."""
    products: tuple[ParsedProduct, ...]
    rows: int


def parse_shopify_csv(data: bytes, currency: str) -> ParsedFile:
    """Reads a whole product file with prices in `currency`.

    Raises `BadCurrency`, and `ImportRefused` if anything at all is wrong: `problems` then names
    each wrong cell.
    """
    currency_exponent(currency)
    sheet = read_sheet(data)
    reader = _Reader(sheet, currency)
    by_handle: dict[str, list[Row]] = {}
    for row in sheet.rows:
        handle = reader.text(row, names.HANDLE, required=True, code=True)
        if handle:
            by_handle.setdefault(handle, []).append(row)
    products = tuple(reader.product(handle, rows) for handle, rows in by_handle.items())
    _refuse_skus_twice(products, reader)
    if reader.problems:
        raise refused(reader.problems)
    return ParsedFile(currency, frozenset(sheet.columns), products, len(sheet.rows))


def refused(problems: Sequence[Problem]) -> ImportRefused:
    """The refusal of a file for its rows, in the order of the file, bounded."""
    ordered = sorted(problems, key=lambda problem: problem.line)
    return ImportRefused(
        "csv_refused",
        f"Nothing was imported: {len(ordered)} things in this file are wrong."
        if len(ordered) > 1
        else f"Nothing was imported: line {ordered[0].line} is wrong. {ordered[0].sentence}",
        problems=ordered[:PROBLEMS_MAX],
        total=len(ordered),
    )


def _refuse_skus_twice(products: Sequence[ParsedProduct], reader: "_Reader") -> None:
    seen: dict[str, int] = {}
    for product in products:
        for one in product.skus:
            if one.sku and one.sku in seen:
                sentence = f"This SKU stands in line {seen[one.sku]} already."
                reader.add(one.line, names.SKU, "sku_twice", sentence)
            seen.setdefault(one.sku, one.line)


class _Reader:
    """Cells to values; what is wrong is noted and reading goes on, so that one run shows it all."""

    def __init__(self, sheet: Sheet, currency: str) -> None:
        self._sheet = sheet
        self._currency = currency
        self.problems = list(sheet.problems)

    def add(self, line: int, column: str, code: str, sentence: str) -> None:
        self.problems.append(Problem(line, column, code, sentence))

    def product(self, handle: str, rows: list[Row]) -> ParsedProduct:
        first = rows[0]
        title = self.text(first, names.TITLE, required=True)
        for row in rows[1:]:
            other = self._sheet.cell(row, names.TITLE)
            if other and other != title:
                sentence = f"Line {first.line} gives this handle another title."
                self.add(row.line, names.TITLE, "title_differs", sentence)
        options = self._option_names(rows)
        skus = self._skus(rows, options)
        if options == ("Title",) and [sku.values for sku in skus] == [("Default Title",)]:
            options = ()
            skus = [replace(sku, values=()) for sku in skus]
        return ParsedProduct(
            line=first.line,
            handle=handle,
            title=title,
            description_html=self._description(first),
            vendor=self.text(first, names.VENDOR),
            kind=self.text(first, names.TYPE),
            tags=self._tags(first),
            options=options,
            published=self._published(first),
            images=self._images(rows),
            skus=tuple(skus),
        )

    def text(
        self,
        row: Row,
        column: str,
        *,
        most: int = rules.TEXT_CHARS_MAX,
        required: bool = False,
        code: bool = False,
    ) -> str:
        text = self._sheet.cell(row, column)
        try:
            rules.check_text(text, column, most=most, required=required, code=code)
        except BadProduct as wrong:
            self.add(row.line, column, wrong.reason, wrong.REASONS[wrong.reason])
            return ""
        return text

    def _skus(self, rows: list[Row], options: tuple[str, ...]) -> list[ParsedSku]:
        skus: list[ParsedSku] = []
        seen: dict[tuple[str, ...], int] = {}
        for row in rows:
            if not self._is_variant(row):
                if row is not rows[0] and not self._sheet.cell(row, names.IMAGE):
                    sentence = "This row is neither a variant nor a picture."
                    self.add(row.line, names.OPTION_VALUES[0], "required", sentence)
                continue
            one = self._sku(row, options)
            if one.values in seen:
                sentence = f"Line {seen[one.values]} has the same options."
                self.add(row.line, names.OPTION_VALUES[0], "options_twice", sentence)
            seen.setdefault(one.values, row.line)
            skus.append(one)
        if not skus:
            sentence = "This product has no row with a price."
            self.add(rows[0].line, names.PRICE, "required", sentence)
        elif len(skus) > rules.SKUS_MAX:
            sentence = f"A product has at most {rules.SKUS_MAX:,} variants."
            self.add(skus[rules.SKUS_MAX].line, "", "too_many", sentence)
        return skus

    def _is_variant(self, row: Row) -> bool:
        return any(
            self._sheet.cell(row, column)
            for column in (*names.OPTION_VALUES, names.PRICE, names.SKU)
        )

    def _sku(self, row: Row, options: tuple[str, ...]) -> ParsedSku:
        image_url = self._sheet.cell(row, names.VARIANT_IMAGE)
        if image_url and not rules.image_url_ok(image_url):
            self._bad_url(row, names.VARIANT_IMAGE)
        compare_at = self._amount(row, names.COMPARE_AT) if self._has(row, names.COMPARE_AT) else 0
        units = self._units(row)
        return ParsedSku(
            line=row.line,
            sku=self.text(row, names.SKU, most=rules.SKU_CHARS_MAX, code=True),
            values=self._option_values(row, options),
            amount=self._amount(row, names.PRICE),
            compare_at=compare_at or None,
            barcode=self.text(row, names.BARCODE, most=rules.BARCODE_CHARS_MAX, code=True),
            image_url=image_url,
            grams=self._grams(row),
            units=units,
            notes=self._notes(row, units),
        )

    def _option_names(self, rows: list[Row]) -> tuple[str, ...]:
        found = [self.text(rows[0], column) for column in names.OPTION_NAMES]
        for row in rows[1:]:
            for column, name in zip(names.OPTION_NAMES, found, strict=True):
                other = self._sheet.cell(row, column)
                if other and other != name:
                    sentence = f"Line {rows[0].line} names this option otherwise."
                    self.add(row.line, column, "options_differ", sentence)
        given = tuple(name for name in found if name)
        if len(set(given)) != len(given):
            sentence = "Two options of this product have the same name."
            self.add(rows[0].line, names.OPTION_NAMES[0], "options_twice", sentence)
        if tuple(found[: len(given)]) != given:
            sentence = "The options of a product are named from the first on."
            self.add(rows[0].line, names.OPTION_NAMES[0], "required", sentence)
        return given

    def _option_values(self, row: Row, options: tuple[str, ...]) -> tuple[str, ...]:
        values: list[str] = []
        for at, column in enumerate(names.OPTION_VALUES):
            named = at < len(options)
            value = self.text(row, column, required=named)
            if named:
                values.append(value)
            elif value and not (at == 0 and value == "Default Title"):
                sentence = "This option has a value, but no name in the product's first row."
                self.add(row.line, column, "options", sentence)
        if len(rules.variant_title(values)) > rules.TEXT_CHARS_MAX:
            self.add(row.line, names.OPTION_VALUES[0], "too_long", "These values are too long.")
        return tuple(values)

    def _amount(self, row: Row, column: str) -> int:
        try:
            return parse_amount(self._sheet.cell(row, column), self._currency)
        except BadAmount as wrong:
            code = "required" if wrong.reason == "empty" else wrong.reason
            self.add(row.line, column, code, wrong.sentence)
            return 0

    def _units(self, row: Row) -> int:
        text = self._sheet.cell(row, names.QUANTITY)
        if not text:
            return 0
        found = _INTEGER.fullmatch(text)
        if found is None:
            self.add(row.line, names.QUANTITY, "number", "A quantity is a whole number.")
            return 0
        units = int(found[2])
        if found[1] and units:
            sentence = "There cannot be less than nothing; write 0 and what is owed elsewhere."
            self.add(row.line, names.QUANTITY, "negative", sentence)
        elif units > UNITS_MAX:
            self.add(row.line, names.QUANTITY, "range", f"At most {UNITS_MAX:,} units.")
        return units

    def _grams(self, row: Row) -> int:
        text = self._sheet.cell(row, names.GRAMS)
        if not text:
            return 0
        if _DECIMAL.fullmatch(text) is None:
            self.add(row.line, names.GRAMS, "number", "A weight is a number of grams.")
            return 0
        grams = int(Decimal(text).quantize(Decimal(1), ROUND_HALF_UP))
        if grams > rules.GRAMS_MAX:
            self.add(row.line, names.GRAMS, "range", f"At most {rules.GRAMS_MAX:,} grams.")
        return grams

    def _notes(self, row: Row, units: int) -> tuple[str, ...]:
        notes = []
        tracked = self._has(row, names.TRACKER) or names.TRACKER not in self._sheet.columns
        if not tracked and not units:
            notes.append("untracked")
        if self._sheet.cell(row, names.POLICY).casefold() in ("continue", "true"):
            notes.append("oversell")
        return tuple(notes)

    def _description(self, row: Row) -> str:
        text = self.text(row, names.BODY, most=rules.DESCRIPTION_CHARS_MAX)
        html = rules.clean_html(text)
        if len(html) > rules.DESCRIPTION_CHARS_MAX:
            self.add(row.line, names.BODY, "too_long", "This description is too long.")
        return html

    def _tags(self, row: Row) -> tuple[str, ...]:
        text = self.text(row, names.TAGS, most=rules.TAGS_MAX * (rules.TEXT_CHARS_MAX + 2))
        tags = tuple(dict.fromkeys(tag.strip() for tag in text.split(",") if tag.strip()))
        if len(tags) > rules.TAGS_MAX:
            self.add(row.line, names.TAGS, "too_many", f"At most {rules.TAGS_MAX} tags.")
        if any(len(tag) > rules.TEXT_CHARS_MAX for tag in tags):
            self.add(row.line, names.TAGS, "too_long", "A tag is too long.")
        return tags

    def _published(self, row: Row) -> bool:
        status = self._sheet.cell(row, names.STATUS).casefold()
        if status not in ("", "active", "draft", "archived", "unlisted"):
            self.add(row.line, names.STATUS, "value", "A status is active, draft or archived.")
        published = self._sheet.cell(row, names.PUBLISHED).casefold()
        if published not in _YES | _NO:
            self.add(row.line, names.PUBLISHED, "value", "This is true or false.")
        gift = self._sheet.cell(row, names.GIFT_CARD).casefold()
        return published in _YES and status in ("", "active") and gift in _NO | {""}

    def _images(self, rows: list[Row]) -> tuple[Image, ...]:
        found: list[tuple[int, Image]] = []
        for row in rows:
            url = self._sheet.cell(row, names.IMAGE)
            if not url:
                continue
            if not rules.image_url_ok(url):
                self._bad_url(row, names.IMAGE)
            alt = self.text(row, names.IMAGE_ALT, most=rules.ALT_CHARS_MAX)
            position = _INTEGER.fullmatch(self._sheet.cell(row, names.IMAGE_POSITION) or "0")
            if position is None:
                self.add(row.line, names.IMAGE_POSITION, "number", "A position is a number.")
            at = int(position[2]) if position else 0
            found.append((at or len(found) + 1, Image(url, alt)))
        found.sort(key=lambda one: one[0])
        once: dict[str, Image] = {}
        for _, image in found:
            once.setdefault(image.url, image)
        images = tuple(once.values())
        if len(images) > rules.IMAGES_MAX:
            self.add(rows[0].line, names.IMAGE, "too_many", f"At most {rules.IMAGES_MAX} pictures.")
        return images

    def _bad_url(self, row: Row, column: str) -> None:
        self.add(row.line, column, "url", BadProduct.REASONS["url"])

    def _has(self, row: Row, column: str) -> bool:
        return bool(self._sheet.cell(row, column))
