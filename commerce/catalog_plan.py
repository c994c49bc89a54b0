"""What a product file changes in the shop: computed first, written in one go, reported row by row.

Responsible for comparing a parsed file with what the shop has, for choosing SKUs where the file has
none, and for the report. Pure: `catalog_sql` reads what exists, calls `plan_import` and writes the
plan, all in one transaction.

Decisions:
* Comparison is by content. The same file twice: everything unchanged.
* An import never touches the stock of a SKU that exists: its number was right when the file was
  exported, not now that units are held and sold. The report says where the numbers differ.
* Nothing is deleted. SKUs of the shop that the file does not name stay as they are ("kept"); those
  whose options the file gives to another SKU, or which do not fit the product any more (other
  options, another currency), are no longer offered ("retired"). Orders keep naming them.
* A variant without SKU keeps the one it got at an earlier import (found by its options). A new one
  is derived from handle and options; where two variants of the file would get the same, or another
  product has it, they get one with a hash. So neither the order of rows nor later rows matter.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final, Literal

from commerce import catalog_csv as names
from commerce.catalog import Product, SkuInfo
from commerce.catalog_csv import Problem
from commerce.catalog_import import ParsedFile, ParsedProduct, ParsedSku, refused
from commerce.catalog_rules import derived_skus, variant_title

Outcome = Literal["created", "changed", "unchanged"]

NOTES: Final = MappingProxyType(
    {
        "sku_derived": "The file has no SKU here; this one was made from handle and options.",
        "stock_kept": "Units of an existing SKU are not changed by an import.",
        "untracked": "Shopify does not count this variant; here it begins with 0 units.",
        "oversell": "Selling more than there are is not possible here.",
    }
)


@dataclass(frozen=True, slots=True)
class Existing:
    """What the shop has of a file's products."""

    products: Mapping[str, Product]
    """By handle, with all their SKUs."""
    owners: Mapping[str, str]
    """Handle of the product that has a SKU, for the SKUs of `skus_of_interest`."""
    on_hand: Mapping[str, int]
    """Units by SKU of those products."""


@dataclass(frozen=True, slots=True)
class SkuOutcome:
    """What happens to one SKU."""

    line: int
    sku: str
    title: str
    outcome: Outcome
    changed: tuple[str, ...] = ()
    """Names of the fields that differ."""
    received: int = 0
    """Units that come in: of new SKUs only."""
    notes: tuple[str, ...] = ()
    """Codes of `NOTES`."""
    units: tuple[int, int] | None = None
    """(in the file, on hand) where they differ."""


@dataclass(frozen=True, slots=True)
class ProductOutcome:
    """What happens to one product."""

    line: int
    id: str
    handle: str
    title: str
    outcome: Outcome
    changed: tuple[str, ...]
    """Names of its own fields that differ, and "skus" if something of a SKU does."""
    skus: tuple[SkuOutcome, ...]
    kept: tuple[str, ...]
    """SKUs of the shop that the file does not name."""
    retired: tuple[str, ...]
    """SKUs that are no longer offered."""


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an import did; JSON as it stands. Lists are as long as the file."""

    ref: str
    currency: str
    rows: int
    counts: Mapping[str, int]
    """products_created, products_changed, products_unchanged, skus_…, units_received."""
    products: tuple[ProductOutcome, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """One product to write."""

    outcome: ProductOutcome
    product: Product
    """As it will be, SKUs that are kept and retired included."""
    before: Product | None


@dataclass(frozen=True, slots=True)
class Plan:
    """All that is to be written, and what to say about it."""

    changes: tuple[Change, ...]
    report: ImportReport


def skus_of_interest(file: ParsedFile) -> list[str]:
    """Every SKU that the plan may give: their owners must be known."""
    found: set[str] = set()
    for product in file.products:
        for one in product.skus:
            found.update((one.sku,) if one.sku else derived_skus(product.handle, one.values))
    return sorted(found)


def plan_import(
    file: ParsedFile, existing: Existing, *, ref: str, new_id: Callable[[], str]
) -> Plan:
    """Compares; about 1 s for 50,000 rows. Raises `ImportRefused` if a SKU is another product's."""
    codes = _Codes(file, existing)
    if codes.problems:
        raise refused(codes.problems)
    changes = tuple(_change(product, file, existing, codes, new_id) for product in file.products)
    outcomes = tuple(change.outcome for change in changes)
    counts = Counter({f"{kind}_{how}": 0 for kind in ("products", "skus") for how in _OUTCOMES})
    counts["units_received"] = 0
    for outcome in outcomes:
        counts[f"products_{outcome.outcome}"] += 1
        for one in outcome.skus:
            counts[f"skus_{one.outcome}"] += 1
            counts["units_received"] += one.received
    return Plan(changes, ImportReport(ref, file.currency, file.rows, dict(counts), outcomes))


_OUTCOMES: Final = ("created", "changed", "unchanged")


class _Codes:
    """The SKU of each variant of the file."""

    def __init__(self, file: ParsedFile, existing: Existing) -> None:
        self.problems: list[Problem] = []
        self._by_line: dict[int, str] = {}
        open_: list[tuple[ParsedSku, tuple[str, str], str]] = []
        for product in file.products:
            known = _by_options(existing.products.get(product.handle))
            for one in product.skus:
                code = one.sku or known.get(_options_key(product, one), "")
                owner = existing.owners.get(code, product.handle)
                if owner != product.handle:
                    sentence = f"The product {owner} has this SKU."
                    self.problems.append(Problem(one.line, names.SKU, "sku_taken", sentence))
                if code:
                    self._by_line[one.line] = code
                else:
                    choices = derived_skus(product.handle, one.values)
                    open_.append((one, choices, product.handle))
        self._derive(open_, existing.owners)

    def __getitem__(self, one: ParsedSku) -> str:
        return self._by_line[one.line]

    def _derive(
        self, open_: list[tuple[ParsedSku, tuple[str, str], str]], owners: Mapping[str, str]
    ) -> None:
        wanted = Counter(choices[0] for _, choices, _ in open_)
        given = set(self._by_line.values())
        for one, (readable, hashed), handle in open_:
            free = (
                wanted[readable] == 1
                and readable not in given
                and owners.get(readable, handle) == handle
            )
            code = readable if free else hashed
            if code in given or owners.get(code, handle) != handle:
                sentence = "No free SKU could be made for this variant; give it one."
                self.problems.append(Problem(one.line, names.SKU, "sku_taken", sentence))
            given.add(code)
            self._by_line[one.line] = code


def _by_options(product: Product | None) -> dict[tuple[tuple[str, str], ...], str]:
    """SKU by options; of several with the same, the one that is offered."""
    skus = sorted(product.skus, key=lambda sku: sku.active) if product else []
    return {tuple(sku.options.items()): sku.sku for sku in skus}


def _options_key(product: ParsedProduct, one: ParsedSku) -> tuple[tuple[str, str], ...]:
    return tuple(zip(product.options, one.values, strict=True))


def _change(
    parsed: ParsedProduct,
    file: ParsedFile,
    existing: Existing,
    codes: _Codes,
    new_id: Callable[[], str],
) -> Change:
    before = existing.products.get(parsed.handle)
    had = {sku.sku: sku for sku in before.skus} if before else {}
    skus = [_sku(parsed, one, codes[one], file, had.get(codes[one])) for one in parsed.skus]
    outcomes = tuple(
        _sku_outcome(one, sku, had.get(sku.sku), file, existing.on_hand)
        for one, sku in zip(parsed.skus, skus, strict=True)
    )
    named = {sku.sku for sku in skus}
    others = [sku for sku in had.values() if sku.sku not in named]
    taken = {tuple(sku.options.items()) for sku in skus}
    rest = [_kept_or_retired(sku, parsed.options, taken, file.currency) for sku in others]
    product = _merged(parsed, file.columns, before, (*skus, *rest), new_id)
    changed = _changed(product, before, apart=("id", "skus")) if before else ()
    if before and product.skus != before.skus:
        changed = (*changed, "skus")
    outcome: Outcome = "created" if before is None else "changed" if changed else "unchanged"
    retired = [new.sku for new, old in zip(rest, others, strict=True) if old.active > new.active]
    return Change(
        ProductOutcome(
            line=parsed.line,
            id=product.id,
            handle=product.handle,
            title=product.title,
            outcome=outcome,
            changed=changed,
            skus=outcomes,
            kept=tuple(sku.sku for sku in rest if sku.active),
            retired=tuple(retired),
        ),
        product,
        before,
    )


def _merged(
    parsed: ParsedProduct,
    columns: frozenset[str],
    before: Product | None,
    skus: tuple[SkuInfo, ...],
    new_id: Callable[[], str],
) -> Product:
    product = Product(
        id=before.id if before else new_id(),
        handle=parsed.handle,
        title=parsed.title,
        description_html=parsed.description_html,
        vendor=parsed.vendor,
        kind=parsed.kind,
        tags=parsed.tags,
        options=parsed.options,
        published=parsed.published,
        images=parsed.images,
        skus=skus,
    )
    if before is None:
        return product
    absent: dict[str, Any] = {}
    for column, field in _PRODUCT_FIELDS:
        if column not in columns:
            absent[field] = getattr(before, field)
    if not columns & {names.PUBLISHED, names.STATUS}:
        absent["published"] = before.published
    return replace(product, **absent)


_PRODUCT_FIELDS: Final = (
    (names.BODY, "description_html"),
    (names.VENDOR, "vendor"),
    (names.TYPE, "kind"),
    (names.TAGS, "tags"),
    (names.IMAGE, "images"),
)
_SKU_FIELDS: Final = (
    (names.COMPARE_AT, "compare_at"),
    (names.BARCODE, "barcode"),
    (names.VARIANT_IMAGE, "image_url"),
    (names.GRAMS, "grams"),
)


def _sku(
    parsed: ParsedProduct, one: ParsedSku, code: str, file: ParsedFile, before: SkuInfo | None
) -> SkuInfo:
    sku = SkuInfo(
        sku=code,
        title=variant_title(one.values),
        options=dict(_options_key(parsed, one)),
        amount=one.amount,
        currency=file.currency,
        compare_at=one.compare_at,
        barcode=one.barcode,
        image_url=one.image_url,
        grams=one.grams,
    )
    if before is None:
        return sku
    absent: dict[str, Any] = {
        field: getattr(before, field) for column, field in _SKU_FIELDS if column not in file.columns
    }
    return replace(sku, **absent)


def _kept_or_retired(
    sku: SkuInfo,
    options: tuple[str, ...],
    taken: Collection[tuple[tuple[str, str], ...]],
    currency: str,
) -> SkuInfo:
    fits = tuple(sku.options) == options and sku.currency == currency
    if fits and tuple(sku.options.items()) not in taken:
        return sku
    return replace(sku, active=False)


def _sku_outcome(
    one: ParsedSku,
    sku: SkuInfo,
    before: SkuInfo | None,
    file: ParsedFile,
    on_hand: Mapping[str, int],
) -> SkuOutcome:
    notes = one.notes
    changed = _changed(sku, before, apart=()) if before else ()
    if before is None:
        notes = notes if one.sku else ("sku_derived", *notes)
        return SkuOutcome(one.line, sku.sku, sku.title, "created", (), one.units, notes)
    notes = tuple(note for note in notes if note != "untracked")
    units = (one.units, on_hand.get(sku.sku, 0)) if names.QUANTITY in file.columns else None
    if units and units[0] != units[1]:
        notes = (*notes, "stock_kept")
    else:
        units = None
    outcome: Outcome = "changed" if changed else "unchanged"
    return SkuOutcome(one.line, sku.sku, sku.title, outcome, changed, 0, notes, units)


def _changed(new: object, old: object, *, apart: tuple[str, ...]) -> tuple[str, ...]:
    fields = [name for name in getattr(new, "__slots__", ()) if name not in apart]
    return tuple(name for name in fields if getattr(new, name) != getattr(old, name))
