"""Every reason for which this server says no: one table for the wire and for HTTP.

Responsible for the code (stable, never reused), the HTTP status it maps to, whether trying the
same again may help, and an English sentence. Pages translate by code and `details`; nothing here
may carry text from an exception. A new code needs a row here, in PROTOCOL.md and a vector: a test
compares the three.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from realtime.errors import Rejected


class Code(NamedTuple):
    """A documented refusal."""

    status: int
    temporary: bool
    sentence: str


CODES: Final = MappingProxyType(
    {
        # The envelope and the connection.
        "bad_frame": Code(400, False, "That is not one MessagePack command."),
        "too_large": Code(413, False, "That is too large."),
        "too_deep": Code(400, False, "That is nested too deeply."),
        "unknown_command": Code(404, False, "There is no such command."),
        "bad_params": Code(422, False, "Something in the request is missing or wrong."),
        "not_joined": Code(409, False, "Join a show first."),
        "already_joined": Code(409, False, "This connection has joined a show already."),
        "rate_limited": Code(429, True, "That was a little fast. Please wait a moment."),
        "busy": Code(503, True, "Very busy right now. Please try again in a moment."),
        "unavailable": Code(503, True, "Not available right now. Please try again in a moment."),
        "internal": Code(500, True, "Something went wrong on our side."),
        # Who you are.
        "token_missing": Code(401, False, "Please sign in."),
        "token_invalid": Code(401, False, "This sign-in is not valid."),
        "token_expired": Code(401, False, "This sign-in has expired."),
        "wrong_show": Code(403, False, "This sign-in is for another show."),
        "forbidden": Code(403, False, "You may not do that."),
        "bad_credentials": Code(401, False, "Name or password is wrong."),
        "origin_refused": Code(403, False, "Requests from this site are not accepted."),
        # The show and its console.
        "unknown_show": Code(404, False, "There is no such show."),
        "show_not_live": Code(409, False, "The show is not live."),
        "show_ended": Code(410, False, "The show has ended."),
        "wrong_state": Code(409, False, "That is not possible in the show's current state."),
        "console_taken": Code(409, False, "Another console has taken over this show."),
        "replayed_action": Code(409, False, "This action was carried out already."),
        # Chat.
        "comment_empty": Code(422, False, "A comment needs some text."),
        "comment_too_long": Code(422, False, "This comment is too long."),
        "card_number": Code(422, False, "Please never type a card number here."),
        "unknown_comment": Code(404, False, "There is no such comment."),
        # Buying.
        "unknown_drop": Code(404, False, "There is no such sale."),
        "drop_not_open": Code(409, True, "The sale has not opened yet."),
        "drop_closed": Code(409, False, "The sale is closed."),
        "sold_out": Code(409, False, "Sold out."),
        "limit_reached": Code(409, False, "You have reached the limit for this sale."),
        "holds_limited": Code(409, False, "Reservations of yours ran out unpaid: fewer at a time."),
        "unknown_claim": Code(404, False, "Nothing is known of this press yet."),
        "bad_quantity": Code(422, False, "The quantity must be between 1 and 99."),
        "rid_conflict": Code(422, False, "This purchase id was used for something else."),
        "price_changed": Code(409, False, "The price has changed."),
        "unknown_hold": Code(404, False, "There is no such reservation."),
        "hold_ended": Code(410, False, "This reservation has ended."),
        "payment_open": Code(409, True, "A payment for this reservation is under way."),
        # Catalogue, stock and orders.
        "unknown_product": Code(404, False, "There is no such product."),
        "unknown_sku": Code(404, False, "There is no such item."),
        "bad_product": Code(422, False, "Something about this product is wrong."),
        "handle_taken": Code(409, False, "Another product has this handle."),
        "sku_taken": Code(409, False, "Another product has this SKU."),
        "product_changed": Code(409, False, "Somebody else has changed this product meanwhile."),
        "in_raffle": Code(409, False, "This sale is a raffle; it can be bought after the draw."),
        "already_waiting": Code(409, False, "You are on the wait list for this already."),
        "unknown_wait": Code(404, False, "You are not on that wait list."),
        "stock_held": Code(409, False, "That many units are held or sold already."),
        "stock_changed": Code(409, False, "The stock has changed since it was read."),
        "unknown_order": Code(404, False, "There is no such order."),
        "orders_under_way": Code(409, False, "Something is still reserved or on its way."),
        "unknown_refund": Code(404, False, "There is no such refund."),
        "unknown_return": Code(404, False, "There is no such return."),
        "unknown_shipment": Code(404, False, "There is no such parcel."),
        "order_moved": Code(409, False, "That is no longer possible: the order has moved on."),
        "refund_too_large": Code(409, False, "That is more than is left of what was paid."),
        "not_refundable": Code(409, False, "There is no money of this order to give back."),
        "terms_fixed": Code(409, False, "Somebody has reserved under these terms already."),
        "coupon_refused": Code(409, False, "This coupon cannot be used."),
        "csv_columns": Code(422, False, "This file lacks columns that a product file needs."),
        "csv_encoding": Code(422, False, "This file is not UTF-8 text."),
        "csv_too_many_rows": Code(413, False, "This file has too many rows."),
        "csv_refused": Code(422, False, "Some rows are wrong, so nothing was imported."),
        "bad_currency": Code(422, False, "That is not a currency we know."),
        "wrong_currency": Code(409, False, "This shop sells in another currency."),
        # The shop's other systems.
        "unknown_webhook": Code(404, False, "There is no such webhook."),
        "too_many_webhooks": Code(409, False, "There are too many webhooks already."),
        "bad_webhook_url": Code(422, False, "Events cannot be sent to that address."),
        # HTTP.
        "not_found": Code(404, False, "There is nothing here."),
        "method_not_allowed": Code(405, False, "That method is not possible here."),
        "unsupported_media_type": Code(415, False, "That type of content is not accepted here."),
        "key_missing": Code(400, False, "This request needs an Idempotency-Key header."),
        "key_conflict": Code(422, False, "This Idempotency-Key was used for something else."),
        "key_in_progress": Code(409, True, "The same request is still being worked on."),
        "bad_signature": Code(400, False, "The signature does not match."),
    }
)


def refuse(
    code: str,
    *,
    message: str | None = None,
    retry_after_ms: int | None = None,
    **details: object,
) -> Rejected:
    """A refusal by a code of the table; `details` are what a page needs to say it in full."""
    return refuse_with(code, details, message=message, retry_after_ms=retry_after_ms)


def refuse_with(
    code: str,
    details: Mapping[str, object],
    *,
    message: str | None = None,
    retry_after_ms: int | None = None,
) -> Rejected:
    """`refuse`, with details that are a mapping already."""
    sentence = message if message is not None else CODES[code].sentence
    return Rejected(code, sentence, retry_after_ms=retry_after_ms, details=details)
