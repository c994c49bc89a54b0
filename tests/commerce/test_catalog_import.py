"""A Shopify product file is read whole, or refused whole with every wrong cell."""

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commerce.catalog import Image
from commerce.catalog_csv import BYTES_MAX, PROBLEMS_MAX, ROWS_MAX, ImportRefused
from commerce.catalog_import import ParsedProduct, parse_shopify_csv
from commerce.errors import BadCurrency
from tests.commerce.product_files import HEADER, SAMPLE, csv_file, hostile_strings, mug, variant


def parsed(*rows: dict[str, str], currency: str = "USD", **how: str) -> tuple[ParsedProduct, ...]:
    return parse_shopify_csv(csv_file(*rows, **how), currency).products


def one(*rows: dict[str, str]) -> ParsedProduct:
    (product,) = parsed(*rows)
    return product


def refusal(data: bytes, currency: str = "USD") -> ImportRefused:
    with pytest.raises(ImportRefused) as refused:
        parse_shopify_csv(data, currency)
    return refused.value


def wrong_cells(*rows: dict[str, str]) -> list[tuple[int, str, str]]:
    refused = refusal(csv_file(*rows))
    assert refused.code == "csv_refused"
    assert all(problem.sentence for problem in refused.problems)
    return [(problem.line, problem.column, problem.code) for problem in refused.problems]


def test_a_product_without_options_is_one_variant() -> None:
    product = one(
        mug(
            Body="<p>Good &amp; <b>round</b></p>",
            Vendor="Kiln",
            Type="Cups",
            Tags="a, b ,a,",
            Variant_SKU="MUG-1",
            Variant_Grams="226.796185",
            Variant_Compare_At_Price="12",
            Variant_Barcode="4006381333931",
        )
    )
    assert product.title == "Mug"
    assert product.description_html == "<p>Good &amp; <b>round</b></p>"
    assert (product.vendor, product.kind, product.tags) == ("Kiln", "Cups", ("a", "b"))
    assert product.options == ()
    (sku,) = product.skus
    assert (sku.sku, sku.values, sku.amount, sku.compare_at) == ("MUG-1", (), 999, 1200)
    assert (sku.units, sku.grams, sku.barcode) == (3, 227, "4006381333931")
    assert sku.line == 2


def test_rows_of_one_handle_are_one_product_wherever_they_stand() -> None:
    first, second = parsed(
        mug(Option1_Name="Size", Option1_Value="Small", Option2_Name="Glaze", Option2_Value="Sand"),
        mug(Handle="bowl", Title="Bowl"),
        variant(Option1_Value="Large", Option2_Value="Sand", Variant_Price="12.50"),
        variant(Image_Src="https://x.example/b.jpg", Image_Alt_Text="behind"),
    )
    assert first.options == ("Size", "Glaze")
    assert [sku.values for sku in first.skus] == [("Small", "Sand"), ("Large", "Sand")]
    assert [sku.amount for sku in first.skus] == [999, 1250]
    assert [sku.line for sku in first.skus] == [2, 4]
    assert first.images == (Image("https://x.example/b.jpg", "behind"),)
    assert second.handle == "bowl"


def test_pictures_come_in_the_order_of_their_positions_and_once() -> None:
    product = one(
        mug(Image_Src="https://x.example/2.jpg", Image_Position="2"),
        variant(Image_Src="https://x.example/1.jpg", Image_Position="1"),
        variant(Image_Src="/static/media/3.svg"),
        variant(Image_Src="https://x.example/1.jpg", Image_Position="9"),
    )
    assert [image.url for image in product.images] == [
        "https://x.example/1.jpg",
        "https://x.example/2.jpg",
        "/static/media/3.svg",
    ]


def test_an_option_called_title_with_another_value_is_an_option() -> None:
    assert one(mug(Option1_Value="Signed")).options == ("Title",)


@pytest.mark.parametrize(
    ("cells", "published"),
    [
        ({}, True),
        ({"Published": "TRUE"}, True),
        ({"Published": "false"}, False),
        ({"Status": "active"}, True),
        ({"Status": "draft"}, False),
        ({"Status": "Archived", "Published": "true"}, False),
        ({"Gift_Card": "true"}, False),
        ({"Gift_Card": "false"}, True),
    ],
)
def test_drafts_and_gift_cards_are_not_published(cells: dict[str, str], published: bool) -> None:
    assert one(mug(**cells)).published is published


@pytest.mark.parametrize(
    ("quantity", "tracker", "policy", "units", "notes"),
    [
        ("5", "shopify", "deny", 5, ()),
        ("5", "", "deny", 5, ()),  # as in Shopify's own samples
        ("0", "", "deny", 0, ("untracked",)),
        ("", "", "", 0, ("untracked",)),
        ("", "shopify", "", 0, ()),
        ("0", "shopify", "continue", 0, ("oversell",)),
        ("5.0", "shopify", "deny", 5, ()),
        ("-0", "shopify", "deny", 0, ()),
    ],
)
def test_units_are_counted_whether_or_not_shopify_did(
    quantity: str, tracker: str, policy: str, units: int, notes: tuple[str, ...]
) -> None:
    cells = {
        "Variant_Inventory_Qty": quantity,
        "Variant_Inventory_Tracker": tracker,
        "Variant_Inventory_Policy": policy,
    }
    (sku,) = one(mug(**cells)).skus
    assert (sku.units, sku.notes) == (units, notes)


def test_prices_are_in_the_currency_that_is_asked_for() -> None:
    (product,) = parsed(mug(Variant_Price="500.00"), currency="JPY")
    assert product.skus[0].amount == 500
    (product,) = parsed(mug(Variant_Price="1.234"), currency="KWD")
    assert product.skus[0].amount == 1234
    with pytest.raises(BadCurrency):
        parsed(mug(), currency="usd")


@pytest.mark.parametrize("how", [{"newline": "\n"}, {"encoding": "utf-8-sig"}, {"newline": "\r"}])
def test_line_ends_and_byte_order_marks_do_not_matter(how: dict[str, str]) -> None:
    (product,) = parsed(mug(Body='two\nlines, "quoted"'), **how)
    assert product.description_html == 'two\nlines, "quoted"'


def test_no_break_spaces_are_trimmed_outside_and_kept_inside() -> None:
    assert one(mug(Title="\u00a0Tea\u00a0cup\u00a0")).title == "Tea\u00a0cup"


def test_column_names_match_in_any_case_and_order_and_unknown_ones_are_left_alone() -> None:
    data = b"variant price,TITLE, handle ,Option1  Name,Option1 Value,Metafield: x\r\n1,M,m,,,?\r\n"
    (product,) = parse_shopify_csv(data, "USD").products
    assert (product.handle, product.title, product.skus[0].amount) == ("m", "M", 100)


def test_the_newer_template_of_shopify_is_read_as_well() -> None:
    header = (
        "Title,URL handle,Description,Vendor,Type,Tags,Published on online store,Status,SKU,"
        "Barcode,Option1 name,Option1 value,Price,Compare-at price,Inventory tracker,"
        "Inventory quantity,Continue selling when out of stock,Weight value (grams),"
        "Product image URL,Image position,Image alt text,Variant image URL,Gift card"
    )
    row = (
        "Mug,mug,<p>Round</p>,Kiln,Cups,a,TRUE,Active,MUG-S,123,Size,Small,9.99,12.00,shopify,7,"
        "CONTINUE,380,https://x.example/m.jpg,1,A mug,https://x.example/s.jpg,FALSE"
    )
    (product,) = parse_shopify_csv(f"{header}\n{row}\n".encode(), "USD").products
    (sku,) = product.skus
    assert (product.handle, product.description_html) == ("mug", "<p>Round</p>")
    assert (sku.sku, sku.units, sku.grams, sku.compare_at) == ("MUG-S", 7, 380, 1200)
    assert (sku.notes, sku.image_url) == (("oversell",), "https://x.example/s.jpg")


def test_a_description_keeps_its_structure_and_loses_what_could_act() -> None:
    html = one(
        mug(
            Body=(
                '<p onclick="x()" style="color:red">Hi <a href="https://x.example">there</a>'
                '<a href="javascript:alert(1)">no</a><img src="x" onerror="alert(1)">'
                "<script>alert(1)</script><style>p{}</style><iframe src=x>y</iframe></p>"
                "<table><tr><td>S</td></tr></table> 1 < 2 & 3"
            )
        )
    ).description_html
    assert '<a href="https://x.example" rel="nofollow noopener noreferrer">there</a>' in html
    assert "<td>S</td>" in html
    assert "1 &lt; 2 &amp; 3" in html
    for gone in ("script", "style", "iframe", "img", "onclick", "onerror", "alert"):
        assert gone not in html


FORMULAS = ["=cmd|'/C calc'!A0", "+1+1", "-2", "@SUM(A1)", "=HYPERLINK(1)", "\t=1"]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_is_text_like_any_other(text: str) -> None:
    assert one(mug(Title=text, Vendor=text)).title == text.strip()


@pytest.mark.parametrize(
    ("cells", "column", "code"),
    [
        ({"Handle": ""}, "Handle", "required"),
        ({"Title": "\u00a0"}, "Title", "required"),
        ({"Title": "x" * 256}, "Title", "too_long"),
        ({"Title": "a\x00b"}, "Title", "characters"),
        ({"Handle": "a\nb"}, "Handle", "characters"),
        ({"Title": "card 4111 1111 1111 1111"}, "Title", "card_number"),
        ({"Body": "<p>pay to 4111111111111111</p>"}, "Body (HTML)", "card_number"),
        ({"Body": "x" * 65_537}, "Body (HTML)", "too_long"),
        ({"Body": "&" * 20_000}, "Body (HTML)", "too_long"),
        ({"Vendor": "x" * 256}, "Vendor", "too_long"),
        ({"Tags": "x" * 256}, "Tags", "too_long"),
        ({"Tags": ",".join(map(str, range(251)))}, "Tags", "too_many"),
        ({"Published": "maybe"}, "Published", "value"),
        ({"Status": "gone"}, "Status", "value"),
        ({"Option1_Value": ""}, "Option1 Value", "required"),
        ({"Option2_Value": "x"}, "Option2 Value", "options"),
        ({"Option3_Name": "x"}, "Option1 Name", "required"),
        ({"Option2_Name": "Title", "Option2_Value": "x"}, "Option1 Name", "options_twice"),
        ({"Variant_SKU": "x" * 65}, "Variant SKU", "too_long"),
        ({"Variant_SKU": "a\x01"}, "Variant SKU", "characters"),
        ({"Variant_Price": "-1"}, "Variant Price", "negative"),
        ({"Variant_Price": "cheap"}, "Variant Price", "garbage"),
        ({"Variant_Price": "1,299.00"}, "Variant Price", "comma"),
        ({"Variant_Price": "9.999"}, "Variant Price", "decimals"),
        ({"Variant_Price": "1e9"}, "Variant Price", "garbage"),
        ({"Variant_Price": "9" * 30}, "Variant Price", "too_large"),
        ({"Variant_Compare_At_Price": "-1"}, "Variant Compare At Price", "negative"),
        ({"Variant_Inventory_Qty": "-1"}, "Variant Inventory Qty", "negative"),
        ({"Variant_Inventory_Qty": "some"}, "Variant Inventory Qty", "number"),
        ({"Variant_Inventory_Qty": "1.5"}, "Variant Inventory Qty", "number"),
        ({"Variant_Inventory_Qty": "1000001"}, "Variant Inventory Qty", "range"),
        ({"Variant_Inventory_Qty": "1" * 18}, "Variant Inventory Qty", "number"),
        ({"Variant_Grams": "-1"}, "Variant Grams", "number"),
        ({"Variant_Grams": "heavy"}, "Variant Grams", "number"),
        ({"Variant_Grams": "999999999"}, "Variant Grams", "range"),
        ({"Variant_Barcode": "x" * 65}, "Variant Barcode", "too_long"),
        ({"Image_Src": "javascript:alert(1)"}, "Image Src", "url"),
        ({"Image_Src": "//evil.example/x.png"}, "Image Src", "url"),
        ({"Image_Src": "data:image/png;base64,AAAA"}, "Image Src", "url"),
        ({"Image_Src": "https://"}, "Image Src", "url"),
        ({"Image_Src": "ftp://x.example/a.png"}, "Image Src", "url"),
        ({"Image_Src": 'https://x.example/"onerror=1'}, "Image Src", "url"),
        ({"Image_Src": "https://[x"}, "Image Src", "url"),
        ({"Image_Src": "https://x.example/" + "a" * 2_048}, "Image Src", "url"),
        ({"Image_Src": "/a.png", "Image_Position": "first"}, "Image Position", "number"),
        ({"Image_Src": "/a.png", "Image_Alt_Text": "x" * 513}, "Image Alt Text", "too_long"),
        ({"Variant_Image": "file:///etc/passwd"}, "Variant Image", "url"),
    ],
)
def test_a_wrong_cell_is_named_with_line_column_and_reason(
    cells: dict[str, str], column: str, code: str
) -> None:
    right = mug(Handle="right", Title="Right")
    assert (3, column, code) in wrong_cells(right, mug(**cells))


def test_barcodes_and_skus_may_look_like_card_numbers() -> None:
    product = one(mug(Variant_Barcode="4111111111111111", Variant_SKU="4242424242424242"))
    assert product.skus[0].barcode == "4111111111111111"


def test_every_wrong_cell_is_listed_in_the_order_of_the_file() -> None:
    assert wrong_cells(
        mug(Variant_Price="-1", Variant_Inventory_Qty="-5"),
        mug(Handle="b", Title=""),
        mug(Handle="c", Variant_Price=""),
        mug(Handle="d", Title="D", Option1_Name="", Option1_Value="", Variant_Price=""),
    ) == [
        (2, "Variant Inventory Qty", "negative"),
        (2, "Variant Price", "negative"),
        (3, "Title", "required"),
        (4, "Variant Price", "required"),
        (5, "Variant Price", "required"),
    ]


def test_lines_are_those_of_the_file_even_after_cells_of_several_lines() -> None:
    problems = wrong_cells(mug(Body="one\ntwo\nthree"), mug(Handle="b", Variant_Price="x"))
    assert problems == [(5, "Variant Price", "garbage")]


@pytest.mark.parametrize(
    ("rows", "wrong"),
    [
        ((mug(Variant_SKU="A"), mug(Handle="b", Variant_SKU="A")), (3, "Variant SKU", "sku_twice")),
        (
            (mug(), variant(Option1_Value="Default Title", Variant_Price="1")),
            (3, "Option1 Value", "options_twice"),
        ),
        ((mug(), mug(Title="Other", Option1_Value="x")), (3, "Title", "title_differs")),
        (
            (mug(), variant(Option1_Name="Size", Option1_Value="x", Variant_Price="1")),
            (3, "Option1 Name", "options_differ"),
        ),
        ((mug(), variant(Vendor="alone")), (3, "Option1 Value", "required")),
        ((mug(), variant(Variant_Price="1")), (3, "Option1 Value", "required")),
    ],
)
def test_rows_that_contradict_each_other_are_refused(
    rows: tuple[dict[str, str], ...], wrong: tuple[int, str, str]
) -> None:
    assert wrong in wrong_cells(*rows)


def test_many_problems_are_counted_and_the_first_thousand_listed() -> None:
    refused = refusal(csv_file(*(mug(Handle=f"h{n}", Variant_Price="-1") for n in range(1_200))))
    assert refused.total == 1_200
    assert len(refused.problems) == PROBLEMS_MAX
    assert "1200" in refused.sentence


@pytest.mark.parametrize(
    ("data", "code", "says"),
    [
        (b"", "csv_columns", "empty"),
        (b"\r\n\r\n", "csv_columns", "empty"),
        (b"\xef\xbb\xbf", "csv_columns", "empty"),
        (b"a,b\n1,2\n", "csv_columns", "Handle"),
        (b'{"products": []}', "csv_columns", "no CSV"),
        (b"<html></html>", "csv_columns", "no CSV"),
        (csv_file(mug()).replace(b",", b";"), "csv_columns", "semicolons"),
        (csv_file(mug()).replace(b",", b"\t"), "csv_columns", "tabs"),
        (csv_file(mug(Title="Ã¤"), encoding="utf-16"), "csv_encoding", "UTF-16"),
        (csv_file(mug(Title="Käse"), encoding="latin-1"), "csv_encoding", "line 2"),
        (csv_file(mug(Title="茶"), encoding="gb18030"), "csv_encoding", "line 2"),
        (b"PK\x03\x04" + b"\xff" * 40, "csv_encoding", "spreadsheet"),
        (b"Handle,Handle,Title,Option1 Name,Option1 Value,Variant Price\n", "csv_columns", "twice"),
        (csv_file(), "csv_refused", "no rows"),
        (csv_file(mug()) + b'x,"never closed\n', "csv_refused", "quotes"),
        (csv_file(mug()) + b'x,"a"b\n', "csv_refused", "quotes"),
        (csv_file(mug()) + b'x,"' + b"a" * 200_000, "csv_refused", "too long"),
        (b"Handle," * 600 + b"\n", "csv_columns", "at most"),
    ],
)
def test_a_file_of_another_kind_is_refused_with_what_to_do(
    data: bytes, code: str, says: str
) -> None:
    refused = refusal(data)
    assert refused.code == code
    assert says in refused.sentence


def test_each_missing_column_is_named() -> None:
    for name in ("Handle", "Title", "Option1 Name", "Option1 Value", "Variant Price"):
        header = [column for column in HEADER if column != name]
        refused = refusal((",".join(header) + "\n").encode())
        assert refused.code == "csv_columns"
        assert refused.missing == (name,)
        assert name in refused.sentence


@pytest.mark.parametrize("tail", [b"mug,Mug\r\n", b"," * 60 + b"x\r\n"])
def test_a_row_with_too_few_or_too_many_cells_is_refused(tail: bytes) -> None:
    refused = refusal(csv_file(mug()) + tail)
    assert [(problem.line, problem.code) for problem in refused.problems] == [(3, "cells")]


def test_empty_rows_are_no_rows() -> None:
    data = csv_file(mug()) + b"\r\n" + b"," * (len(HEADER) - 1) + b"\r\n" + b"," * 60 + b"\r\n"
    assert parse_shopify_csv(data, "USD").rows == 1


def test_a_hundred_thousand_rows_are_refused_quickly() -> None:
    head = "Handle,Title,Option1 Name,Option1 Value,Variant Price\n"
    data = (head + "".join(f"p-{n},Product {n},,,1.00\n" for n in range(100_000))).encode()
    assert len(data) < BYTES_MAX
    started = time.process_time()
    assert refusal(data).code == "csv_too_many_rows"
    assert time.process_time() - started < 1.5


def test_the_limit_of_rows_is_exact() -> None:
    head = "Handle,Title,Option1 Name,Option1 Value,Variant Price\n"
    rows = "".join(f"p-{n // 500},P,O,{n},1\n" for n in range(ROWS_MAX))
    assert parse_shopify_csv((head + rows).encode(), "USD").rows == ROWS_MAX
    assert refusal((head + rows + "p,P,,,1\n").encode()).code == "csv_too_many_rows"


def test_a_file_over_ten_mebibytes_is_refused_unread() -> None:
    assert refusal(b"\xff" * (BYTES_MAX + 1)).code == "too_large"


def test_our_own_sample_is_a_plausible_shop() -> None:
    file = parse_shopify_csv(SAMPLE.read_bytes(), "USD")
    assert len(file.products) == 8
    assert sum(len(product.skus) for product in file.products) == 16
    drawn = {image.url.rpartition("/")[2] for one in file.products for image in one.images}
    names = ("mug", "bowl", "vase", "plate", "scarf", "cushion", "candle", "teapot")
    assert drawn == {f"{name}.svg" for name in names}
    for product in file.products:
        assert product.published
        assert product.description_html.startswith("<p>")
        assert all(sku.sku and sku.units and sku.amount > 0 for sku in product.skus)


@pytest.mark.parametrize(
    ("name", "products", "skus", "units"),
    [("shopify-apparel.csv", 20, 22, 22), ("shopify-home-and-garden.csv", 20, 21, 65)],
)
def test_real_product_files_of_shopify_are_read(
    shared_data: Path, name: str, products: int, skus: int, units: int
) -> None:
    file = parse_shopify_csv((shared_data / "products" / name).read_bytes(), "USD")
    found = [sku for product in file.products for sku in product.skus]
    assert (len(file.products), len(found)) == (products, skus)
    assert sum(sku.units for sku in found) == units
    assert not any(sku.notes for sku in found if sku.units)


def test_product_files_of_other_shops_are_refused_and_it_is_said_why(shared_data: Path) -> None:
    others = [
        path
        for path in sorted((shared_data / "products").iterdir())
        if not path.name.startswith("shopify-")
    ]
    assert len(others) >= 6
    for path in others:
        refused = refusal(path.read_bytes())
        assert refused.code == "csv_columns", path.name
        assert "Handle" in refused.missing, path.name
        assert ("semicolons" in refused.sentence) is ("semicolon" in path.name)


def test_hostile_strings_are_kept_as_they_are() -> None:
    titles = hostile_strings()
    rows = [mug(Handle=f"h-{n}", Title=text) for n, text in enumerate(titles)]
    assert [product.title for product in parsed(*rows)] == titles


TEXT = st.text(
    st.characters(exclude_characters="\x00", exclude_categories=("Cs",)), min_size=1, max_size=40
).filter(lambda text: text.strip() and not any(ch.isdigit() for ch in text))


@settings(deadline=None)  # the machine may be busy
@given(titles=st.lists(TEXT, min_size=1, max_size=5), newline=st.sampled_from(["\n", "\r\n"]))
def test_titles_and_options_survive_the_way_through_a_file(titles: list[str], newline: str) -> None:
    rows = [
        mug(Handle=f"h-{n}", Title=text, Option1_Name="Kind", Option1_Value=text)
        for n, text in enumerate(titles)
    ]
    products = parsed(*rows, newline=newline)
    assert [product.title for product in products] == [text.strip() for text in titles]
    assert [product.skus[0].values for product in products] == [(t.strip(),) for t in titles]


@settings(deadline=None)  # the machine may be busy
@given(st.binary(max_size=400))
def test_any_bytes_are_refused_or_read(data: bytes) -> None:
    with pytest.raises(ImportRefused):
        parse_shopify_csv(data, "USD")


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.lists(st.text(max_size=12), min_size=5, max_size=5), max_size=5))
def test_any_cells_are_read_or_refused_with_reasons(rows: list[list[str]]) -> None:
    header = ("Handle", "Title", "Option1 Name", "Option1 Value", "Variant Price")
    named = [dict(zip(header, row, strict=True)) for row in rows]
    data = csv_file(*named, header=header, encoding="utf-8")
    try:
        file = parse_shopify_csv(data, "USD")
    except ImportRefused as refused:
        why = refused
    else:
        assert all(product.skus for product in file.products)
        return
    assert why.code == "csv_refused"
    assert why.problems or not any(cell.strip() for row in rows for cell in row)
