"""What an import changes: by content, never the stock of what exists, never deleting."""

from itertools import count, permutations
from pathlib import Path

import pytest

from commerce.catalog import Product
from commerce.catalog_csv import ImportRefused
from commerce.catalog_import import ParsedFile, parse_shopify_csv
from commerce.catalog_plan import NOTES, Existing, Plan, plan_import, skus_of_interest
from tests.commerce.product_files import SAMPLE, csv_file, mug, shop_files, variant

EMPTY = Existing({}, {}, {})


def plan(file: ParsedFile | bytes, existing: Existing = EMPTY) -> Plan:
    numbers = count(1)
    if isinstance(file, bytes):
        file = parse_shopify_csv(file, "USD")
    return plan_import(file, existing, ref="import-1", new_id=lambda: f"p{next(numbers)}")


def after(first: Plan, earlier: Existing = EMPTY) -> Existing:
    """What a shop has once the plan is carried out."""
    products: dict[str, Product] = dict(earlier.products)
    products.update({change.product.handle: change.product for change in first.changes})
    received = {
        sku.sku: sku.received
        for outcome in first.report.products
        for sku in outcome.skus
        if sku.outcome == "created"
    }
    return Existing(
        products=products,
        owners={sku.sku: one.handle for one in products.values() for sku in one.skus},
        on_hand={**earlier.on_hand, **received},
    )


def sizes(*values: str, **cells: str) -> list[dict[str, str]]:
    """A mug in sizes, all without SKU."""
    first = mug(Option1_Name="Size", Option1_Value=values[0], **cells)
    return [first, *(variant(Option1_Value=one, Variant_Price="9.99") for one in values[1:])]


def codes(found: Plan, at: int = 0) -> list[str]:
    return [sku.sku for sku in found.report.products[at].skus]


def test_a_new_file_creates_everything_and_brings_its_units() -> None:
    found = plan(SAMPLE.read_bytes())
    counts = found.report.counts
    assert (counts["products_created"], counts["skus_created"]) == (8, 16)
    assert (counts["products_changed"], counts["skus_unchanged"]) == (0, 0)
    assert counts["units_received"] == 241
    assert found.report.rows == 16
    assert {one.outcome for one in found.report.products} == {"created"}


@pytest.mark.parametrize("path", shop_files(), ids=lambda path: path.stem)
def test_the_same_file_twice_changes_nothing(path: Path) -> None:
    shop = after(plan(path.read_bytes()))
    again = plan(path.read_bytes(), shop)
    assert {one.outcome for one in again.report.products} == {"unchanged"}
    assert {sku.outcome for one in again.report.products for sku in one.skus} == {"unchanged"}
    assert again.report.counts["units_received"] == 0
    assert not [sku for one in again.report.products for sku in one.skus if sku.notes]
    assert [change.product for change in again.changes] == list(shop.products.values())


def test_a_changed_price_is_a_change_of_that_sku_and_nothing_else() -> None:
    shop = after(plan(csv_file(*sizes("S", "L"))))
    rows = sizes("S", "L")
    rows[1]["Variant_Price"] = "12.50"
    (product,) = plan(csv_file(*rows), shop).report.products
    assert (product.outcome, product.changed) == ("changed", ("skus",))
    assert [sku.outcome for sku in product.skus] == ["unchanged", "changed"]
    assert product.skus[1].changed == ("amount",)


def test_a_changed_title_is_a_change_of_the_product() -> None:
    shop = after(plan(csv_file(mug())))
    (product,) = plan(csv_file(mug(Title="Cup", Tags="new")), shop).report.products
    assert (product.outcome, product.changed) == ("changed", ("title", "tags"))
    assert product.skus[0].outcome == "unchanged"
    assert product.id == "p1"


def test_stock_of_what_exists_is_not_touched_and_the_report_says_so() -> None:
    shop = after(plan(csv_file(mug())))
    found = plan(csv_file(mug(Variant_Inventory_Qty="50")), shop)
    (sku,) = found.report.products[0].skus
    assert (sku.outcome, sku.received, sku.notes) == ("unchanged", 0, ("stock_kept",))
    assert sku.units == (50, 3)
    assert found.report.counts["units_received"] == 0
    assert set(sku.notes) <= set(NOTES)


def test_an_absent_column_leaves_what_the_shop_has_and_an_empty_cell_empties_it() -> None:
    full = mug(
        Body="<p>Round</p>",
        Vendor="Kiln",
        Type="Cups",
        Tags="a",
        Published="false",
        Image_Src="/a.svg",
        Variant_Grams="380",
        Variant_Barcode="123",
        Variant_Compare_At_Price="20",
        Variant_Image="/b.svg",
    )
    shop = after(plan(csv_file(full)))
    header = ("Handle", "Title", "Option1 Name", "Option1 Value", "Variant Price")
    few = {key: full[key] for key in ("Handle", "Title", "Option1_Name", "Option1_Value")}
    price_list = csv_file({**few, "Variant_Price": "11.00"}, header=header)
    (change,) = plan(price_list, shop).changes
    assert change.outcome.changed == ("skus",)
    assert change.outcome.skus[0].changed == ("amount",)
    assert change.outcome.skus[0].units is None
    assert change.product.images == shop.products["mug"].images
    assert not change.product.published
    (change,) = plan(csv_file(mug()), shop).changes
    assert change.product.description_html == ""
    assert change.product.images == ()
    assert change.product.skus[0].compare_at is None


def test_skus_that_the_file_does_not_name_are_kept() -> None:
    shop = after(plan(csv_file(*sizes("S", "M", "L"))))
    (change,) = plan(csv_file(*sizes("S", "L")), shop).changes
    assert change.outcome.kept == ("mug-m",)
    assert change.outcome.retired == ()
    assert {sku.sku for sku in change.product.skus if sku.active} == {"mug-s", "mug-m", "mug-l"}


def test_skus_that_do_not_fit_any_more_are_no_longer_offered() -> None:
    shop = after(plan(csv_file(mug())))
    (change,) = plan(csv_file(*sizes("S", "L")), shop).changes
    assert change.outcome.retired == ("mug",)
    assert [(sku.sku, sku.active) for sku in change.product.skus] == [
        ("mug-s", True),
        ("mug-l", True),
        ("mug", False),
    ]
    back = plan(csv_file(mug()), after(plan(csv_file(*sizes("S", "L")), shop), shop))
    assert back.report.products[0].skus[0].changed == ("active",)
    assert back.report.products[0].retired == ("mug-s", "mug-l")


def test_a_new_sku_for_the_same_options_retires_the_old_one() -> None:
    shop = after(plan(csv_file(mug())))
    (product,) = plan(csv_file(mug(Variant_SKU="NEW-1")), shop).report.products
    assert (product.skus[0].outcome, product.retired) == ("created", ("mug",))


def test_a_file_in_another_currency_changes_every_price() -> None:
    shop = after(plan(csv_file(*sizes("S", "M"))))
    file = parse_shopify_csv(csv_file(*sizes("S")), "EUR")
    (product,) = plan(file, shop).report.products
    assert product.skus[0].changed == ("currency",)
    assert product.retired == ("mug-m",)


def test_made_up_skus_do_not_depend_on_the_order_of_rows() -> None:
    values = ("A/B", "a b", "c", "红", "蓝")
    expected = None
    for order in permutations(values):
        found = plan(csv_file(*sizes(*order)))
        made = dict(zip(order, codes(found), strict=True))
        expected = expected or made
        assert made == expected
    assert expected
    assert len(set(expected.values())) == len(values)
    assert expected["c"] == "mug-c"


def test_made_up_skus_stay_when_later_rows_would_collide() -> None:
    shop = after(plan(csv_file(*sizes("a b"))))
    found = plan(csv_file(*sizes("A/B", "a b")), shop)
    assert codes(found)[1] == "mug-a-b"
    assert codes(found)[0].startswith("mug-a-b-")
    assert [sku.outcome for sku in found.report.products[0].skus] == ["created", "unchanged"]


def test_a_made_up_sku_avoids_that_of_another_product_and_one_the_file_gives() -> None:
    rows = [*sizes("S"), mug(Handle="other", Title="Other", Variant_SKU="mug-s")]
    found = plan(csv_file(*rows))
    assert codes(found)[0].startswith("mug-s-")
    assert codes(found, 1) == ["mug-s"]
    other = after(plan(csv_file(rows[1])))
    assert codes(plan(csv_file(*sizes("S")), other))[0].startswith("mug-s-")


def test_a_renamed_option_keeps_the_made_up_sku() -> None:
    shop = after(plan(csv_file(*sizes("S"))))
    row = mug(Option1_Name="Grösse", Option1_Value="S")
    (product,) = plan(csv_file(row), shop).report.products
    assert product.changed == ("options", "skus")
    assert (product.skus[0].sku, product.skus[0].changed) == ("mug-s", ("options",))


def test_the_sku_of_another_product_is_refused_with_its_line() -> None:
    shop = after(plan(csv_file(mug(Variant_SKU="MUG-1"))))
    rows = (mug(Variant_SKU="MUG-1"), mug(Handle="cup", Title="Cup", Variant_SKU="MUG-1"))
    with pytest.raises(ImportRefused) as refused:
        plan(csv_file(rows[1]), shop)
    (problem,) = refused.value.problems
    assert (problem.line, problem.column, problem.code) == (2, "Variant SKU", "sku_taken")
    assert "mug" in problem.sentence


def test_every_sku_a_plan_may_give_is_asked_about() -> None:
    file = parse_shopify_csv(csv_file(*sizes("a b", "A/B", "红"), mug(Handle="b")), "USD")
    assert set(codes(plan(file))) <= set(skus_of_interest(file))


def test_notes_tell_what_is_different_here() -> None:
    row = mug(Variant_Inventory_Qty="", Variant_Inventory_Tracker="")
    (sku,) = plan(csv_file(row)).report.products[0].skus
    assert sku.notes == ("sku_derived", "untracked")
    (sku,) = plan(csv_file(row), after(plan(csv_file(row)))).report.products[0].skus
    assert sku.notes == ()
