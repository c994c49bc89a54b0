"""Which products are valid, what a description may hold, which SKUs are made up."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commerce.catalog import BadProduct, Image, Product, SkuInfo
from commerce.catalog_rules import (
    SKU_CHARS_MAX,
    clean_html,
    derived_skus,
    image_url_ok,
    normal_product,
    with_skus,
)
from commerce.errors import BadCurrency


def sku(**fields: object) -> SkuInfo:
    base = SkuInfo(sku="MUG-S", title="", options={"Size": "S"}, amount=999, currency="USD")
    return replace(base, **fields)  # type: ignore[arg-type]


def mug(**fields: object) -> Product:
    base = Product(id="", handle="mug", title="Mug", options=("Size",), skus=(sku(),))
    return replace(base, **fields)  # type: ignore[arg-type]


def test_a_product_is_kept_trimmed_with_titles_of_its_skus() -> None:
    product = normal_product(
        mug(
            handle=" mug ",
            title="\u00a0Mug",
            tags=("a ", " a", "", "b"),
            options=("Size", " Glaze "),
            skus=(sku(options={" Glaze": "Sand ", "Size": "S"}, title="forged"),),
        )
    )
    assert (product.handle, product.title, product.tags) == ("mug", "Mug", ("a", "b"))
    assert product.skus[0].title == "S / Sand"
    assert list(product.skus[0].options) == ["Size", "Glaze"]
    assert normal_product(product) == product


@pytest.mark.parametrize(
    ("fields", "field", "reason"),
    [
        ({"handle": ""}, "handle", "required"),
        ({"title": " "}, "title", "required"),
        ({"title": "x" * 256}, "title", "too_long"),
        ({"title": "a\x00"}, "title", "characters"),
        ({"title": "a\ud800"}, "title", "characters"),
        ({"title": "4111 1111 1111 1111"}, "title", "card_number"),
        ({"vendor": "x" * 256}, "vendor", "too_long"),
        ({"kind": "x" * 256}, "kind", "too_long"),
        ({"description_html": "x" * 65_537}, "description_html", "too_long"),
        ({"description_html": "<" * 65_000}, "description_html", "too_long"),
        ({"tags": ("x" * 256,)}, "tags", "too_long"),
        ({"tags": tuple(map(str, range(251)))}, "tags", "too_many"),
        ({"options": ("A", "B", "C", "D")}, "options", "too_many"),
        ({"options": ("Size", "Size")}, "options", "options_twice"),
        ({"options": ("",)}, "options", "required"),
        ({"skus": ()}, "skus", "required"),
        ({"skus": (sku(),) * 2_049}, "skus", "too_many"),
        ({"skus": (sku(), sku(options={"Size": "L"}))}, "skus", "sku_twice"),
        ({"skus": (sku(), sku(sku="B"))}, "skus", "options_twice"),
        (
            {"skus": (sku(), sku(sku="B", options={"Size": "L"}, currency="EUR"))},
            "skus",
            "currency",
        ),
        ({"skus": (sku(options={}),)}, "skus.0.options", "options"),
        ({"skus": (sku(options={"Size": ""}),)}, "skus.0.options", "required"),
        ({"skus": (sku(sku="x" * 65),)}, "skus.0.sku", "too_long"),
        ({"skus": (sku(sku="a\n"), sku(sku="b\nc", options={"Size": "L"}))}, "skus.1.sku", None),
        ({"skus": (sku(amount=-1),)}, "skus.0.amount", "range"),
        ({"skus": (sku(amount=10**12 + 1),)}, "skus.0.amount", "range"),
        ({"skus": (sku(compare_at=-1),)}, "skus.0.compare_at", "range"),
        ({"skus": (sku(grams=-1),)}, "skus.0.grams", "range"),
        ({"skus": (sku(image_url="x"),)}, "skus.0.image_url", "url"),
        ({"skus": (sku(barcode="x" * 65),)}, "skus.0.barcode", "too_long"),
        ({"images": (Image("javascript:x"),)}, "images.0.url", "url"),
        ({"images": (Image("/a", "x" * 513),)}, "images.0.alt", "too_long"),
        ({"images": (Image("/a"),) * 251}, "images", "too_many"),
    ],
)
def test_what_cannot_be_kept_is_refused_with_its_field(
    fields: dict[str, object], field: str, reason: str | None
) -> None:
    with pytest.raises(BadProduct) as refused:
        normal_product(mug(**fields))
    assert refused.value.field == field
    assert refused.value.reason == (reason or "characters")
    assert refused.value.reason in BadProduct.REASONS


def test_an_unknown_currency_is_refused() -> None:
    with pytest.raises(BadCurrency):
        normal_product(mug(skus=(sku(currency="XXX"),)))


def test_what_is_not_offered_any_more_may_be_of_former_days() -> None:
    old = sku(sku="OLD", options={"Colour": "Red"}, currency="EUR", active=False)
    assert normal_product(mug(skus=(sku(), old))).skus[1].title == "Red"


@pytest.mark.parametrize(
    ("url", "ok"),
    [
        ("https://x.example/a b.png", False),
        ("https://x.example/a.png?v=1&w=2", True),
        ("HTTP://x.example/a@2x.png", True),
        ("https://x.example/bild-ü.png", True),
        ("/static/media/a.svg", True),
        ("//x.example/a.png", False),
        ("/\\x.example/a.png", False),
        ("static/a.svg", False),
        ("https:///a.png", False),
        ("https://user@x.example/a.png", False),
        ("javascript:alert(1)", False),
        (" https://x.example/a.png", False),
        ("https://x.example/\na.png", False),
        ("", False),
    ],
)
def test_pictures_are_on_the_web_or_on_our_own_server(url: str, ok: bool) -> None:
    assert image_url_ok(url) is ok


@settings(deadline=None)  # the machine may be busy
@given(st.text(max_size=300))
def test_cleaning_twice_changes_nothing_and_no_script_is_left(text: str) -> None:
    html = clean_html(f"<p>{text}<script>{text}</script><b onclick='{text}'>")
    assert clean_html(html) == html
    assert "<script" not in html.lower()
    assert "<b onclick" not in html.lower()


def test_made_up_skus_read_well_and_stay_the_same() -> None:
    assert derived_skus("clay-pot", ("Large",))[0] == "clay-pot-large"
    assert derived_skus("Clay Pot", ("Extra Large", "Crème"))[0] == "clay-pot-extra-large-creme"
    assert derived_skus("pot", ())[0] == "pot"
    readable, hashed = derived_skus("pot", ("Large",))
    assert hashed.startswith("pot-large-")
    assert (readable, hashed) == derived_skus("pot", ("Large",))


@pytest.mark.parametrize("values", [("红色",), ("красный", "L"), ("★",), ("x" * 80,), ("大", "小")])
def test_where_letters_would_be_lost_a_hash_tells_variants_apart(values: tuple[str, ...]) -> None:
    readable, hashed = derived_skus("pot", values)
    assert readable == hashed
    assert len(hashed) <= SKU_CHARS_MAX
    assert hashed != derived_skus("pot", (*values[:-1], values[-1] + "!"))[1]


@settings(deadline=None)  # the machine may be busy
@given(st.text(min_size=1, max_size=300), st.lists(st.text(max_size=300), max_size=3))
def test_made_up_skus_are_valid(handle: str, values: list[str]) -> None:
    for code in derived_skus(handle, tuple(values)):
        assert 0 < len(code) <= SKU_CHARS_MAX
        assert code.isascii()
        assert set(code) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


def test_made_up_skus_avoid_those_that_are_taken() -> None:
    skus = (sku(sku="", options={"Size": "S"}), sku(sku="", options={"Size": "s"}))
    first, second = with_skus(mug(skus=skus), {"mug-l"}).skus
    assert first.sku == "mug-s"
    assert second.sku.startswith("mug-s-")
    (third,) = with_skus(mug(skus=skus[:1]), {"mug-s"}).skus
    assert third.sku == derived_skus("mug", ("S",))[1]


def test_equal_content_has_one_fingerprint_whatever_the_id() -> None:
    assert mug(id="a").fingerprint == mug(id="b").fingerprint
    assert mug().fingerprint != mug(title="Mugs").fingerprint
    assert mug().fingerprint != mug(skus=(sku(amount=1),)).fingerprint
    assert len(mug().fingerprint) == 64
