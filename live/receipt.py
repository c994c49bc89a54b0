"""A receipt as a page to print: what was bought, what was paid, what went back.

Responsible for plain HTML without scripts, pictures or links, in English or Chinese. It must not
know engines. Every text in it that somebody typed is escaped. It is a receipt, not a tax invoice:
the shop's legal details are the shop's to add.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from html import escape
from typing import Any, Final

from babel import Locale

from commerce.money import format_amount
from commerce.orders import Order

WORDS: Final = {
    "en": {
        "receipt": "Receipt", "order": "Order", "date": "Date", "item": "Item",
        "quantity": "Quantity", "price": "Price", "subtotal": "Subtotal", "discount": "Discount",
        "shipping": "Shipping", "total": "Total", "tax": "tax", "included": "including {tax}",
        "refunded": "Refunded",
        "to": "Delivered to",
    },
    "zh": {
        "receipt": "收据", "order": "订单", "date": "日期", "item": "商品", "quantity": "数量",
        "price": "单价", "subtotal": "小计", "discount": "优惠", "shipping": "运费",
        "total": "合计", "tax": "税款", "included": "其中{tax}", "refunded": "已退款",
        "to": "收货人",
    },
}  # fmt: skip
ADDRESS: Final = ("line1", "line2", "postcode", "city", "region", "country")
STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:40rem;margin:2rem auto;padding:0 1rem}"
    "table{width:100%;border-collapse:collapse}td,th{padding:.3rem 0;text-align:left}"
    "td:last-child,th:last-child{text-align:right;white-space:nowrap}"
    "tfoot td{border-top:1px solid #ccc}"
)


def page(
    order: Order,
    shop: str,
    tax_title: str,
    customer: Mapping[str, Any] | None,
    accept_language: str,
) -> str:
    """The whole document."""
    language = "zh" if accept_language.strip().lower().startswith("zh") else "en"
    words = WORDS[language]
    rows = "".join(
        f"<tr><td>{escape(line.title or line.sku)}</td><td>{line.quantity}</td>"
        f"<td>{_amount(line.unit_amount, order.currency)}</td></tr>"
        for line in order.lines
    )
    tax = words["included"].format(tax=escape(tax_title) if tax_title else words["tax"])
    sums = [
        (words["subtotal"], order.subtotal, True),
        (words["discount"], -order.discount, bool(order.discount)),
        (words["shipping"], order.shipping, bool(order.shipping)),
        (words["total"], order.total, True),
        (tax, order.tax, bool(order.tax)),
        (words["refunded"], -order.refunded, bool(order.refunded)),
    ]
    foot = "".join(
        f'<tr><td colspan="2">{name}</td><td>{_amount(amount, order.currency)}</td></tr>'
        for name, amount, shown in sums
        if shown
    )
    placed = datetime.fromtimestamp(order.placed_at / 1000, UTC).date().isoformat()
    return (
        f'<!doctype html><html lang="{language}"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width">'
        f"<title>{words['receipt']} {escape(order.id)}</title><style>{STYLE}</style></head><body>"
        f"<main><h1>{escape(shop)}</h1>"
        f"<p>{words['receipt']} · {words['order']} {escape(order.id)}<br>"
        f"{words['date']} {placed}</p>"
        f"{_address(customer, words['to'], language)}"
        f"<table><thead><tr><th>{words['item']}</th><th>{words['quantity']}</th>"
        f"<th>{words['price']}</th></tr></thead><tbody>{rows}</tbody><tfoot>{foot}</tfoot></table>"
        "</main></body></html>"
    )


def _address(customer: Mapping[str, Any] | None, title: str, language: str) -> str:
    if not customer:
        return ""
    address = dict(customer.get("address") or {})
    code = address.get("country", "")
    address["country"] = Locale(language).territories.get(code, code)
    parts = [customer.get("name", "")]
    parts += [address.get(name, "") for name in ADDRESS]
    return f"<p>{title}<br>{'<br>'.join(escape(str(part)) for part in parts if part)}</p>"


def _amount(amount: int, currency: str) -> str:
    return f"{format_amount(amount, currency)} {escape(currency)}"
