"""How holds and orders look outside: one shape for the wire and for HTTP.

Responsible for the maps of PROTOCOL.md chapters 4 and 6, so that a page may use what it got by
either way. Pure: it knows no engine, and nothing personal passes through it.
"""

from typing import Any

from commerce.orders import Order
from commerce.stock import Hold
from commerce.waiting import Waiter


def money(amount: int, currency: str) -> dict[str, Any]:
    """Minor units with their currency."""
    return {"amount": amount, "currency": currency}


def hold_view(hold: Hold) -> dict[str, Any]:
    """A hold, for its own viewer."""
    return {
        "rid": hold.rid,
        "drop": hold.drop,
        "state": hold.state.value,
        "until_ms": hold.until_ms,
        "lines": [
            {
                "sku": line.sku,
                "title": line.title,
                "quantity": line.quantity,
                "price": money(line.unit_amount, hold.currency),
            }
            for line in hold.lines
        ],
        "total": money(hold.total, hold.currency),
        "receipt": list(hold.receipt),
        "lapses": hold.lapses,
    }


def wait_view(waiter: Waiter) -> dict[str, Any]:
    """An entry of a wait list, for its own viewer."""
    return {
        "rid": waiter.rid,
        "drop": waiter.drop,
        "sku": waiter.sku,
        "quantity": waiter.quantity,
        "state": waiter.state.value,
        "position": waiter.position,
    }


def order_view(order: Order) -> dict[str, Any]:
    """An order, without anything personal."""
    return {
        "id": order.id,
        "rid": order.rid,
        "show": order.show,
        "state": str(order.state),
        "lines": [
            {
                "sku": line.sku,
                "title": line.title,
                "quantity": line.quantity,
                "price": money(line.unit_amount, order.currency),
            }
            for line in order.lines
        ],
        "subtotal": money(order.subtotal, order.currency),
        "discount": money(order.discount, order.currency),
        "shipping": money(order.shipping, order.currency),
        "tax": money(order.tax, order.currency),
        "total": money(order.total, order.currency),
        "refunded": money(order.refunded, order.currency),
        "at": order.placed_at,
        "updated_at": order.updated_at,
    }
