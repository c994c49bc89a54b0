"""From a shopkeeper's refusal to a code: one table, used by the wire and by HTTP.

Responsible for nothing else. A class of `commerce.errors` without a row here is an `internal`
failure, which a test forbids.
"""

from types import MappingProxyType
from typing import Final

from commerce import catalog, errors, people
from live.codes import refuse, refuse_with
from realtime.errors import BrokerUnavailable, Rejected

CODE_OF: Final = MappingProxyType(
    {
        errors.UnknownDrop: "unknown_drop",
        errors.UnknownSku: "unknown_sku",
        errors.UnknownProduct: "unknown_product",
        errors.UnknownHold: "unknown_hold",
        errors.UnknownOrder: "unknown_order",
        errors.DropNotOpen: "drop_not_open",
        errors.DropClosed: "drop_closed",
        errors.SoldOut: "sold_out",
        errors.LimitReached: "limit_reached",
        errors.HoldsLimited: "holds_limited",
        errors.BadQuantity: "bad_quantity",
        errors.RidConflict: "rid_conflict",
        errors.PriceChanged: "price_changed",
        errors.HoldEnded: "hold_ended",
        errors.PaymentOpen: "payment_open",
        errors.InRaffle: "in_raffle",
        errors.AlreadyWaiting: "already_waiting",
        errors.UnknownWait: "unknown_wait",
        errors.UnknownRefund: "unknown_refund",
        errors.UnknownReturn: "unknown_return",
        errors.UnknownShipment: "unknown_shipment",
        errors.OrderMoved: "order_moved",
        errors.RefundTooLarge: "refund_too_large",
        errors.NotRefundable: "not_refundable",
        errors.TermsFixed: "terms_fixed",
        errors.CouponRefused: "coupon_refused",
        errors.PaymentPending: "payment_open",
        errors.StockHeld: "stock_held",
        errors.StockChanged: "stock_changed",
        errors.SkuInDrop: "wrong_state",
        errors.BadCurrency: "bad_currency",
        errors.BadSignature: "bad_signature",
        errors.CardNumberFound: "card_number",
        errors.KeyConflict: "key_conflict",
        errors.KeyInProgress: "key_in_progress",
        catalog.BadProduct: "bad_product",
        catalog.BadCursor: "bad_params",
        catalog.HandleTaken: "handle_taken",
        catalog.SkuTaken: "sku_taken",
        catalog.ProductChanged: "product_changed",
        people.OrdersUnderWay: "orders_under_way",
        errors.Busy: "busy",
        errors.Unavailable: "unavailable",
    }
)
OUTAGE_RETRY_MS: Final = 1_000


def as_rejected(error: errors.CommerceError | BrokerUnavailable) -> Rejected:
    """The refusal to send for what commerce or the broker raised."""
    if isinstance(error, BrokerUnavailable):
        return refuse("unavailable", retry_after_ms=OUTAGE_RETRY_MS)
    code = CODE_OF.get(type(error), "internal")
    if isinstance(error, errors.Temporary):
        return refuse(code, retry_after_ms=error.retry_after_ms)
    assert isinstance(error, errors.Refused)
    details = error.details()
    wait = details.pop("retry_after_ms", None)
    return refuse_with(code, details, retry_after_ms=wait if isinstance(wait, int) else None)
