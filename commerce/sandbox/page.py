"""The hosted payment page, for a person with a phone: what is bought, what it costs, test cards.

Responsible for HTML in English and Chinese. It must not decide: it shows a session and offers the
buttons that the rules allow. One plain form and no script, so that it works everywhere and a test
can press its buttons by HTTP. It says on every screen that no real money moves.
"""

from decimal import Decimal
from html import escape
from typing import Final

from babel import Locale
from babel.numbers import format_currency

from commerce.money import currency_exponent
from commerce.sandbox.objects import Object
from commerce.sandbox.provider import CARD_ASKS, CARD_DECLINED, CARD_LATE, CARD_SUCCEEDS

HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

TWO_DIGITS: Final = {"ISK": 2, "UGX": 2}
"""Stripe counts these in hundredths, although ISO 4217 gives them no decimals."""

_WORDS: Final = {
    "en": {
        "title": "Payment (sandbox)",
        "sandbox": "Sandbox: no real money moves. Never type a real card number anywhere here.",
        "total": "Total",
        "until": "This page can be used for {minutes} more minutes. The shop may end it earlier.",
        "choose": "Choose a test card",
        "succeeds": "Pay",
        "declined": "Is declined",
        "asks": "The bank asks first",
        "late": "The money arrives late",
        "back": "Back to the shop",
        "was_declined": "The card was declined. Nothing was charged. You can try another one.",
        "bank": "Your bank asks: is this you?",
        "approve": "Yes, pay",
        "reject": "No",
        "complete": "This payment is complete. You can go back to the shop.",
        "expired": "This payment page has ended. Nothing was charged.",
        "gone": "There is no such payment page.",
    },
    "zh": {
        "title": "付款（沙盒）",
        "sandbox": "沙盒环境：不会产生真实扣款。请勿在此输入真实卡号。",
        "total": "合计",
        "until": "此页面还可使用 {minutes} 分钟，商家可能提前结束。",
        "choose": "选择一张测试卡",
        "succeeds": "支付",
        "declined": "被拒绝",
        "asks": "银行先验证",
        "late": "稍后到账",
        "back": "返回商家",
        "was_declined": "卡被拒绝，未扣款。您可以换一张卡再试。",
        "bank": "银行验证：是您本人吗？",
        "approve": "是，支付",
        "reject": "不是",
        "complete": "付款已完成，您可以返回商家。",
        "expired": "此付款页面已结束，未扣款。",
        "gone": "没有这个付款页面。",
    },
}

_STYLE: Final = """
:root{color-scheme:light dark;--ink:#14171f;--soft:#5a6275;--line:#d9dde6;--paper:#fff;
--ground:#f2f4f8;--accent:#3d4edb;--warn:#7a4b00;--warn-ground:#fff3d6}
@media(prefers-color-scheme:dark){:root{--ink:#eef0f6;--soft:#a7aec0;--line:#343a49;--paper:#1b1f2a;
--ground:#11141b;--accent:#8c98ff;--warn:#ffd98a;--warn-ground:#3a2c0c}}
*{box-sizing:border-box}body{margin:0;background:var(--ground);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI","PingFang SC","Microsoft YaHei",sans-serif}
main{max-width:28rem;margin:0 auto;padding:1rem}section{background:var(--paper);
border:1px solid var(--line);border-radius:14px;padding:1.1rem;margin:0 0 1rem}
.note{background:var(--warn-ground);color:var(--warn);border-color:transparent;font-weight:600}
h1{font-size:2rem;margin:.1rem 0 .6rem;font-variant-numeric:tabular-nums}
h2{font-size:1rem;margin:0 0 .8rem}table{width:100%;border-collapse:collapse}
td{padding:.35rem 0;vertical-align:top}td:last-child{text-align:right;white-space:nowrap;
font-variant-numeric:tabular-nums;padding-left:1rem}p{margin:.6rem 0;color:var(--soft)}
form{display:grid;gap:.6rem}button{font:inherit;min-height:52px;padding:.5rem 1rem;text-align:left;
border:1px solid var(--line);border-radius:10px;background:transparent;color:inherit;cursor:pointer;
display:flex;justify-content:space-between;gap:1rem;align-items:center}
button:hover{border-color:var(--accent)}button:focus-visible{outline:3px solid var(--accent);
outline-offset:2px}button.first{background:var(--accent);border-color:var(--accent);color:var(--paper);
font-weight:600}button.plain{justify-content:center;border-color:transparent;color:var(--soft)}
small{font-variant-numeric:tabular-nums;opacity:.8;white-space:nowrap}
"""


def language(accepted: str) -> str:
    """ "en" or "zh" from an Accept-Language header: the first of the two that is named."""
    for part in accepted[:200].lower().split(","):
        for known in ("zh", "en"):
            if part.strip().startswith(known):
                return known
    return "en"


def hosted(session: Object, intent: Object | None, lang: str, now_s: int) -> str:
    """The page of a session in whatever state it is."""
    words = _WORDS[lang]
    parts = [_note(words["sandbox"], "note"), _summary(session, lang, now_s)]
    if session["status"] == "complete":
        parts.append(_note(words["complete"], ""))
    elif session["status"] == "expired":
        parts.append(_note(words["expired"], ""))
    elif intent is not None and intent["status"] == "requires_action":
        parts.append(_bank(words))
    else:
        if intent is not None and intent["last_payment_error"] is not None:
            parts.append(_note(words["was_declined"], "note"))
        parts.append(_cards(session, words))
    return _document(words["title"], lang, "".join(parts))


def gone(lang: str) -> str:
    """There is no such session."""
    words = _WORDS[lang]
    return _document(words["title"], lang, _note(words["gone"], ""))


def money(amount: int, currency: str, lang: str) -> str:
    """Minor units as a person reads them. Integers only: the point is put in by hand."""
    code = currency.upper()
    digits = TWO_DIGITS.get(code) or currency_exponent(code)
    whole, rest = divmod(amount, 10**digits)
    text = f"{whole}.{rest:0{digits}d}" if digits else str(whole)
    return str(format_currency(Decimal(text), code, locale=Locale.parse(lang)))


def _summary(session: Object, lang: str, now_s: int) -> str:
    words, currency = _WORDS[lang], session["currency"]
    rows = "".join(
        f"<tr><td>{escape(line['name'])}{_times(line['quantity'])}</td>"
        f"<td>{escape(money(line['amount'] * line['quantity'], currency, lang))}</td></tr>"
        for line in session["_lines"]
    )
    left = max(0, (session["expires_at"] - now_s) // 60)
    until = words["until"].format(minutes=left) if session["status"] == "open" else ""
    total = escape(money(session["amount_total"], currency, lang))
    return (
        f'<section aria-label="{words["total"]}">{words["total"]}<h1>{total}</h1>'
        f"<table>{rows}</table><p>{until}</p></section>"
    )


def _times(quantity: int) -> str:
    return f" × {quantity}" if quantity != 1 else ""


def _cards(session: Object, words: dict[str, str]) -> str:
    offers = (
        (CARD_SUCCEEDS, words["succeeds"], "first"),
        (CARD_DECLINED, words["declined"], ""),
        (CARD_ASKS, words["asks"], ""),
        (CARD_LATE, words["late"], ""),
    )
    buttons = "".join(
        f'<button class="{style}" name="card" value="{number}">{escape(label)}'
        f"<small>{_grouped(number)}</small></button>"
        for number, label, style in offers
    )
    back = ""
    if session["cancel_url"]:
        back = (
            f'<button class="plain" name="action" value="cancel">{escape(words["back"])}</button>'
        )
    heading = escape(words["choose"])
    return f'<section><h2>{heading}</h2><form method="post">{buttons}{back}</form></section>'


def _bank(words: dict[str, str]) -> str:
    return (
        f'<section><h2>{escape(words["bank"])}</h2><form method="post">'
        f'<button class="first" name="action" value="approve">{escape(words["approve"])}</button>'
        f'<button name="action" value="reject">{escape(words["reject"])}</button></form></section>'
    )


def _note(text: str, style: str) -> str:
    return f'<section class="{style}" role="status">{escape(text)}</section>'


def _grouped(number: str) -> str:
    return " ".join(number[n : n + 4] for n in range(0, len(number), 4))


def _document(title: str, lang: str, body: str) -> str:
    tag = "zh-Hans" if lang == "zh" else "en"
    return (
        f'<!doctype html><html lang="{tag}"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body><main>{body}</main></body></html>"
    )
