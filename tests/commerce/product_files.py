"""Small product files for tests, written as a spreadsheet program would."""

import csv
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "commerce" / "sample_catalog.csv"
REAL = ROOT.parent / "shared" / "data"
HOSTILE = (
    *("'; DROP TABLE product;--", '"quoted", too', "=1+1", "🫖 Teekanne", "\u202eabc", "ﷺ"),
    *("<script>alert(1)</script>", "100%_\\", "null", "a\r\nb", "\u200b茶\ufeff", "NaN"),
)
HEADER = (
    *("Handle", "Title", "Body (HTML)", "Vendor", "Type", "Tags", "Published"),
    *("Option1 Name", "Option1 Value", "Option2 Name", "Option2 Value"),
    *("Option3 Name", "Option3 Value", "Variant SKU", "Variant Grams"),
    *("Variant Inventory Tracker", "Variant Inventory Qty", "Variant Inventory Policy"),
    *("Variant Price", "Variant Compare At Price", "Variant Barcode", "Image Src"),
    *("Image Position", "Image Alt Text", "Gift Card", "Variant Image", "Status"),
)


def mug(**cells: str) -> dict[str, str]:
    """A product with one variant; cells by column name, blanks written as underscores."""
    row = {
        "Handle": "mug",
        "Title": "Mug",
        "Option1_Name": "Title",
        "Option1_Value": "Default Title",
        "Variant_Price": "9.99",
        "Variant_Inventory_Qty": "3",
        "Variant_Inventory_Tracker": "shopify",
    }
    return row | cells


def variant(**cells: str) -> dict[str, str]:
    """A further row of the mug."""
    return {"Handle": "mug", **cells}


def csv_file(
    *rows: Mapping[str, str],
    header: Iterable[str] = HEADER,
    newline: str = "\r\n",
    encoding: str = "utf-8",
) -> bytes:
    """The file's bytes; "Variant_Price" means the column Variant Price, "Body" Body (HTML)."""
    header = list(header)
    text = io.StringIO(newline="")
    # Python 3.11 leaves a lone carriage return without quotes.
    bare = any("\r" in cell for row in rows for cell in row.values())
    quoting = csv.QUOTE_ALL if bare else csv.QUOTE_MINIMAL
    writer = csv.DictWriter(text, header, restval="", lineterminator=newline, quoting=quoting)
    writer.writeheader()
    for row in rows:
        named = {"Body (HTML)" if key == "Body" else key.replace("_", " "): row[key] for key in row}
        writer.writerow(named)
    return text.getvalue().encode(encoding)


def shop_files() -> list[Path]:
    """Real product files where they are at hand, our own sample in any case."""
    return [SAMPLE, *sorted((REAL / "products").glob("shopify-*.csv"))]


def hostile_strings() -> list[str]:
    """Strings that broke other programs, trimmed; a published list too where it is at hand."""
    found = list(HOSTILE)
    published = REAL / "hostile" / "blns.json"
    if published.exists():
        found += json.loads(published.read_text(encoding="utf-8"))
    trimmed = (text.strip() for text in found)
    return [text for text in trimmed if 0 < len(text) <= 200 and "\x00" not in text]
