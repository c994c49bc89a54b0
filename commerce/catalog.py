"""The words of the catalogue: product, SKU, image, page; and the port that keeps them.

A product is what a host shows and pins; a SKU is what is bought, has a price and a stock. This
module names them and says when two are the same content; `catalog_rules` says which are valid. It
must not know SQL or files. Stock is not here: a price may be edited by hand, units only by the
ledger.

Why a fingerprint: the same import twice, and the same `put` twice, must change nothing and say so;
and two hosts editing at once must not overwrite each other unseen. One hash of the content does
both: it is compared instead of 20 columns, and it is the version that an edit is based on.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Protocol

from commerce.errors import Refused
from commerce.keep import Keep

if TYPE_CHECKING:  # they are made of the words below
    from commerce.catalog_import import ParsedFile
    from commerce.catalog_plan import ImportReport

PAGE_MAX: Final = 200
QUERY_CHARS_MAX: Final = 100


@dataclass(frozen=True, slots=True)
class Image:
    """A picture: http(s), or a path of our own server that begins with one "/"."""

    url: str
    alt: str = ""


@dataclass(frozen=True, slots=True)
class SkuInfo:
    """One buyable variant."""

    sku: str
    """Empty on the way in: derived from the handle and the options."""
    title: str
    """ "Small / Blue"; empty for the only variant. Derived from the options by `normal_product`."""
    options: Mapping[str, str]
    """{"Size": "Small"}, in the order of the product's options."""
    amount: int
    """Minor units of `currency`."""
    currency: str
    compare_at: int | None = None
    """A former price, to be shown struck out."""
    barcode: str = ""
    image_url: str = ""
    grams: int = 0
    active: bool = True
    """Whether it may be offered; a SKU is never deleted, because orders name it."""


@dataclass(frozen=True, slots=True)
class Product:
    """What is for sale, with its SKUs in order."""

    id: str
    """Empty on the way in: a new product."""
    handle: str
    """Its name in addresses and files, unique in the shop."""
    title: str
    description_html: str = ""
    """Sanitised: safe to put into a page as it is."""
    vendor: str = ""
    kind: str = ""
    tags: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    """Names in order: ("Size", "Colour"); empty for a product with one variant."""
    published: bool = True
    images: tuple[Image, ...] = ()
    skus: tuple[SkuInfo, ...] = ()

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the content, the id aside: equal content, equal version."""
        content = (
            *(self.handle, self.title, self.description_html, self.vendor, self.kind),
            *(self.tags, self.options, self.published),
            [(image.url, image.alt) for image in self.images],
            [_content(sku) for sku in self.skus],
        )
        text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _content(sku: SkuInfo) -> tuple[object, ...]:
    return (
        *(sku.sku, sku.title, sorted(sku.options.items()), sku.amount, sku.currency),
        *(sku.compare_at, sku.barcode, sku.image_url, sku.grams, sku.active),
    )


@dataclass(frozen=True, slots=True)
class SkuCard:
    """A SKU with what a card of it shows."""

    sku: SkuInfo
    product: str
    handle: str
    product_title: str
    published: bool
    image_url: str
    """The SKU's own picture, else the product's first, else empty."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some products by title, and where the next ones begin."""

    products: tuple[Product, ...]
    next: str | None
    """Give it as `after`; None: that was all. Opaque."""


class BadProduct(Refused):
    """A field of a product is wrong; `reason` is one of `REASONS`."""

    REASONS: Final = MappingProxyType(
        {
            "required": "This must not be empty.",
            "too_long": "This is too long.",
            "too_many": "There are too many of these.",
            "characters": "This contains characters that cannot be stored.",
            "card_number": "This looks like a card number, which must not stand here.",
            "url": "A picture's address begins with http:// or https://.",
            "range": "This number is out of range.",
            "currency": "All prices of a product are in one currency that we know.",
            "options": "Each variant needs one value for each option of its product.",
            "options_twice": "Two variants of this product have the same options.",
            "sku_twice": "This SKU stands for two variants.",
        }
    )

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(field, reason)
        self.field = field
        self.reason = reason


class BadCursor(Refused):
    """`after` is not what a page gave as `next`."""


class HandleTaken(Refused):
    """Another product has this handle."""

    def __init__(self, handle: str) -> None:
        super().__init__(handle)
        self.handle = handle


class SkuTaken(Refused):
    """Another product has this SKU."""

    def __init__(self, sku: str) -> None:
        super().__init__(sku)
        self.sku = sku


class ProductChanged(Refused):
    """Somebody changed the product since the version that this edit is based on."""

    def __init__(self, version: str) -> None:
        super().__init__(version)
        self.version = version


class Catalog(Protocol):
    """What live needs of a catalogue; `catalog_sql.SqlCatalog` keeps it."""

    async def list(
        self,
        query: str | None = None,
        limit: int = 50,
        after: str | None = None,
        *,
        published_only: bool = False,
    ) -> Page:
        """Products by title whose title, handle or a SKU contains `query`. Raises `BadCursor`."""

    async def product(self, product_id: str) -> Product:
        """One product. Raises `UnknownProduct`."""

    async def by_skus(self, skus: Iterable[str]) -> dict[str, SkuCard]:
        """Those of the SKUs that exist, each with what a card shows."""

    async def put(
        self,
        product: Product,
        *,
        expected: str | None = None,
        keep: Keep[Product] | None = None,
    ) -> Product:
        """Creates (empty id) or changes a product; gives it as stored.

        `expected`: the fingerprint this edit is based on. Raises `BadProduct`, `UnknownProduct`,
        `HandleTaken`, `SkuTaken`, `ProductChanged`.
        """

    async def import_plan(
        self, file: "ParsedFile", ref: str, keep: "Keep[ImportReport] | None" = None
    ) -> "ImportReport":
        """Imports a parsed file, all or nothing. Raises `ImportRefused`, `Busy`."""
