"""Which products are valid, and how they are kept: trimmed, sanitised, titles of SKUs derived.

Responsible for the limits of every field and for what may stand in a description. It must not know
where a product comes from (a form, a file) or where it is kept. What cannot be kept is refused with
the field, never cut off: half a title is a wrong title.
"""

import hashlib
import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Final
from urllib.parse import urlsplit

import nh3

from commerce.card_numbers import find_card_number
from commerce.catalog import BadProduct, Image, Product, SkuInfo
from commerce.money import AMOUNT_MAX, currency_exponent

TEXT_CHARS_MAX: Final = 255
"""Handle, title, vendor, kind, a tag, an option's name or value."""
SKU_CHARS_MAX: Final = 64
BARCODE_CHARS_MAX: Final = 64
DESCRIPTION_CHARS_MAX: Final = 65_536
ALT_CHARS_MAX: Final = 512
URL_CHARS_MAX: Final = 2_048
TAGS_MAX: Final = 250
OPTIONS_MAX: Final = 3
SKUS_MAX: Final = 2_048
"""SKUs of one product; Shopify's limit."""
IMAGES_MAX: Final = 250
GRAMS_MAX: Final = 100_000_000

_TEXT_TAGS: Final = frozenset({"b", "br", "code", "em", "i", "p", "pre", "s", "small", "strong"})
_BLOCK_TAGS: Final = frozenset({"blockquote", "div", "h2", "h3", "h4", "h5", "h6", "hr"})
_LIST_TAGS: Final = frozenset({"li", "ol", "ul", "table", "tbody", "td", "th", "thead", "tr"})
_TAGS: Final = _TEXT_TAGS | _BLOCK_TAGS | _LIST_TAGS | {"a", "sub", "sup", "u"}
_GONE: Final = frozenset({"script", "style", "iframe", "object", "embed", "svg", "math", "form"})
"""Removed with what is in them; of other tags the text stays."""
_NO_SLUG: Final = re.compile(r"[^a-z0-9]+")


def clean_html(html: str) -> str:
    """Text with a little structure: no scripts, styles, pictures, frames or attributes.

    Links go to http, https or mailto addresses and carry rel="nofollow noopener noreferrer", so
    that an imported description can neither run anything nor vouch for anybody.
    """
    return nh3.clean(
        html,
        tags=set(_TAGS),
        clean_content_tags=set(_GONE),
        attributes={"a": {"href"}, "td": {"colspan", "rowspan"}, "th": {"colspan", "rowspan"}},
        url_schemes={"http", "https", "mailto"},
        url_relative="deny",
        link_rel="nofollow noopener noreferrer",
    ).strip()


def image_url_ok(url: str) -> bool:
    """http or https with a host, or a path on our own server (not "//host", which is another's)."""
    if len(url) > URL_CHARS_MAX or any(ch <= " " or ch in '"<>\\\x7f' for ch in url):
        return False
    if url.startswith("/"):
        return not url.startswith("//")
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.username
    except ValueError:
        return False


def variant_title(options: Iterable[str]) -> str:
    """ "Small / Blue"."""
    return " / ".join(options)


def normal_product(product: Product) -> Product:
    """The product as it is kept: trimmed, sanitised, titles of SKUs derived. Raises `BadProduct`.

    Does not fill in missing ids and SKUs. What cannot be kept is refused, never cut off.
    """
    names = tuple(name.strip() for name in product.options)
    _check_all(names, "options", OPTIONS_MAX)
    if len(set(names)) != len(names):
        raise BadProduct("options", "options_twice")
    if not 0 < len(product.skus) <= SKUS_MAX:
        raise BadProduct("skus", "too_many" if product.skus else "required")
    skus = tuple(_normal_sku(sku, names, f"skus.{at}") for at, sku in enumerate(product.skus))
    _check_distinct(skus)
    images = tuple(_normal_image(one, f"images.{at}") for at, one in enumerate(product.images))
    if len(images) > IMAGES_MAX:
        raise BadProduct("images", "too_many")
    tags = tuple(dict.fromkeys(tag.strip() for tag in product.tags if tag.strip()))
    _check_all(tags, "tags", TAGS_MAX)
    normal = replace(
        product,
        handle=product.handle.strip(),
        title=product.title.strip(),
        vendor=product.vendor.strip(),
        kind=product.kind.strip(),
        tags=tags,
        options=names,
        images=images,
        skus=skus,
    )
    check_text(normal.handle, "handle", required=True, code=True)
    check_text(normal.title, "title", required=True)
    check_text(normal.vendor, "vendor")
    check_text(normal.kind, "kind")
    check_text(normal.description_html, "description_html", most=DESCRIPTION_CHARS_MAX)
    html = clean_html(normal.description_html)
    if len(html) > DESCRIPTION_CHARS_MAX:
        raise BadProduct("description_html", "too_long")
    return replace(normal, description_html=html)


def check_text(
    text: str,
    field: str,
    *,
    most: int = TEXT_CHARS_MAX,
    required: bool = False,
    code: bool = False,
) -> None:
    """Raises `BadProduct` unless `text` can be kept and shown.

    `code`: a handle, SKU or barcode, in which no control characters make sense and which may look
    like a card number. NUL can be kept by no PostgreSQL, half a surrogate pair by no UTF-8.
    """
    if required and not text:
        raise BadProduct(field, "required")
    if len(text) > most:
        raise BadProduct(field, "too_long")
    if "\x00" in text or (code and any(ch < " " or ch == "\x7f" for ch in text)):
        raise BadProduct(field, "characters")
    if not text.isascii() and any("\ud800" <= ch <= "\udfff" for ch in text):
        raise BadProduct(field, "characters")
    if not code and find_card_number(text):
        raise BadProduct(field, "card_number")


def derived_skus(handle: str, values: Sequence[str]) -> tuple[str, str]:
    """A SKU for a variant that has none: a readable one, and one that no other variant gets.

    ("clay-pot", ["Large"]) gives clay-pot-large and clay-pot-large-1f3b…; the same input gives the
    same SKUs for ever. Where letters would be lost (红色) or cut off, both carry the hash.
    """
    parts = [unicodedata.normalize("NFKD", part).casefold() for part in (handle, *values)]
    slugs = [_NO_SLUG.sub("-", _without_marks(part)).strip("-") for part in parts]
    readable = "-".join(slug for slug in slugs if slug)
    content = "\x00".join((handle, *values)).encode("utf-8", "surrogatepass")
    sign = hashlib.sha256(content).hexdigest()[:10]
    hashed = f"{readable[: SKU_CHARS_MAX - 11].strip('-')}-{sign}".lstrip("-")
    lost = not all(slugs) or any(
        ch.isalnum() and not ch.isascii() for part in parts for ch in _without_marks(part)
    )
    return (hashed if lost or len(readable) > SKU_CHARS_MAX else readable), hashed


def with_skus(product: Product, taken: Collection[str]) -> Product:
    """The product with a SKU for each variant that has none, none of them in `taken`.

    If even the one with the hash is taken, it is given all the same: the caller refuses it.
    """
    given = {sku.sku for sku in product.skus}
    skus: list[SkuInfo] = []
    for sku in product.skus:
        code = sku.sku
        if not code:
            readable, code = derived_skus(product.handle, tuple(sku.options.values()))
            if readable not in given and readable not in taken:
                code = readable
            given.add(code)
        skus.append(replace(sku, sku=code))
    return replace(product, skus=tuple(skus))


def _without_marks(text: str) -> str:
    return "".join(ch for ch in text if not unicodedata.combining(ch))


def _check_all(texts: tuple[str, ...], field: str, most: int) -> None:
    if len(texts) > most:
        raise BadProduct(field, "too_many")
    for text in texts:
        check_text(text, field, required=True)


def _check_distinct(skus: tuple[SkuInfo, ...]) -> None:
    codes = [sku.sku for sku in skus if sku.sku]
    if len(set(codes)) != len(codes):
        raise BadProduct("skus", "sku_twice")
    active = [sku for sku in skus if sku.active]
    if len({tuple(sku.options.items()) for sku in active}) != len(active):
        raise BadProduct("skus", "options_twice")
    if len({sku.currency for sku in active}) > 1:
        raise BadProduct("skus", "currency")


def _normal_sku(sku: SkuInfo, names: tuple[str, ...], field: str) -> SkuInfo:
    options = {name.strip(): value.strip() for name, value in sku.options.items()}
    if sku.active:  # one that is not offered any more may have the options of former days
        if set(options) != set(names):
            raise BadProduct(f"{field}.options", "options")
        options = {name: options[name] for name in names}
    for value in options.values():
        check_text(value, f"{field}.options", required=True)
    code, barcode = sku.sku.strip(), sku.barcode.strip()
    check_text(code, f"{field}.sku", most=SKU_CHARS_MAX, code=True)
    check_text(barcode, f"{field}.barcode", most=BARCODE_CHARS_MAX, code=True)
    title = variant_title(options.values())
    check_text(title, f"{field}.title")
    if sku.image_url and not image_url_ok(sku.image_url):
        raise BadProduct(f"{field}.image_url", "url")
    currency_exponent(sku.currency)
    _check_range(sku.amount, AMOUNT_MAX, f"{field}.amount")
    _check_range(sku.compare_at or 0, AMOUNT_MAX, f"{field}.compare_at")
    _check_range(sku.grams, GRAMS_MAX, f"{field}.grams")
    return replace(sku, sku=code, title=title, options=options, barcode=barcode)


def _normal_image(image: Image, field: str) -> Image:
    if not image_url_ok(image.url):
        raise BadProduct(f"{field}.url", "url")
    alt = image.alt.strip()
    check_text(alt, f"{field}.alt", most=ALT_CHARS_MAX)
    return Image(image.url, alt)


def _check_range(number: int, most: int, field: str) -> None:
    if not 0 <= number <= most:
        raise BadProduct(field, "range")
