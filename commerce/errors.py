"""Why the shop refuses: each refusal is a class that carries its data.

Responsible for naming refusals in a shopkeeper's words. It must not know codes, statuses or
sentences: `live` translates each class once, in one table. The data is what a person needs to
understand the answer (how many are left, when it opens), never the text of an exception.

    CommerceError
    ├── Refused                 decided, nothing changed
    │   ├── UnknownDrop · UnknownSku · UnknownProduct · UnknownHold · UnknownOrder
    │   ├── DropNotOpen · DropClosed · SoldOut · LimitReached · HoldsLimited · BadQuantity
    │   ├── RidConflict · PriceChanged · HoldEnded · PaymentOpen
    │   ├── AlreadyWaiting · UnknownWait · InRaffle
    │   ├── UnknownRefund · UnknownReturn · UnknownShipment
    │   ├── OrderMoved · RefundTooLarge · NotRefundable · TermsFixed · PaymentPending
    │   ├── StockHeld · StockChanged · SkuInDrop · BadCurrency · BadSignature · CardNumberFound
    │   └── KeyConflict · KeyInProgress
    └── Temporary               not decided; the same attempt may be repeated
        ├── Busy                the in-flight cap is reached
        └── Unavailable         an engine or the provider did not answer
"""


class CommerceError(Exception):
    """Root of what this package raises."""


class Refused(CommerceError):
    """Decided: no. Nothing was changed."""

    receipt: tuple[int, int] | None = None
    """(epoch, n) of the decision, where the gate (or the record alone) took a number for it."""

    def details(self) -> dict[str, object]:
        """What a person needs to know, as plain values."""
        return {name: value for name, value in vars(self).items() if value is not None}


class UnknownDrop(Refused):
    """No such drop."""


class UnknownSku(Refused):
    """No such SKU, or not part of the drop."""

    def __init__(self, sku: str) -> None:
        super().__init__(sku)
        self.sku = sku


class UnknownProduct(Refused):
    """No such product."""


class UnknownHold(Refused):
    """No such reservation, or another viewer's."""


class UnknownOrder(Refused):
    """No such order, or another viewer's."""


class DropNotOpen(Refused):
    """Pressed before the opening."""

    def __init__(self, opens_at: int, retry_after_ms: int) -> None:
        super().__init__(opens_at)
        self.opens_at = opens_at
        self.retry_after_ms = retry_after_ms


class DropClosed(Refused):
    """Pressed after the close."""


class SoldOut(Refused):
    """Fewer units left than asked for; `left` may be more than none."""

    def __init__(self, sku: str, left: int) -> None:
        super().__init__(sku, left)
        self.sku = sku
        self.left = left


class LimitReached(Refused):
    """This viewer may not hold or buy that many; `limit` units of `sku` (or open holds if None)."""

    def __init__(self, sku: str | None, limit: int) -> None:
        super().__init__(sku, limit)
        self.sku = sku
        self.limit = limit


class HoldsLimited(Refused):
    """Holds of this viewer lapsed unpaid, so only `limit` may be open at a time until `until_ms`
    (milliseconds), when the rule gets milder."""

    def __init__(self, limit: int, until_ms: int) -> None:
        super().__init__(limit, until_ms)
        self.limit = limit
        self.until_ms = until_ms


class BadQuantity(Refused):
    """Zero, negative or absurdly many."""

    def __init__(self, sku: str) -> None:
        super().__init__(sku)
        self.sku = sku


class RidConflict(Refused):
    """The same id with another viewer, drop or lines."""


class PriceChanged(Refused):
    """The page showed another total."""

    def __init__(self, total: int) -> None:
        super().__init__(total)
        self.total = total


class HoldEnded(Refused):
    """The reservation has lapsed, was cancelled or is sold."""

    def __init__(self, state: str) -> None:
        super().__init__(state)
        self.state = state


class PaymentOpen(Refused):
    """A payment is under way, so this must wait for its end."""


class InRaffle(Refused):
    """This drop is drawn: one enters, and only what is left after the draw can be bought."""


class AlreadyWaiting(Refused):
    """This viewer waits for this SKU in this drop already, under `rid`."""

    def __init__(self, rid: str) -> None:
        super().__init__(rid)
        self.rid = rid


class UnknownWait(Refused):
    """Not on any wait list under this id, or somebody else."""


class UnknownRefund(Refused):
    """No such refund."""


class UnknownReturn(Refused):
    """No such return."""


class UnknownShipment(Refused):
    """No such shipment."""


class OrderMoved(Refused):
    """These units, or this refund, return or shipment, are no longer where that is possible."""

    def __init__(self, state: str) -> None:
        super().__init__(state)
        self.state = state


class RefundTooLarge(Refused):
    """More than is left of what was paid; `left` in minor units."""

    def __init__(self, left: int) -> None:
        super().__init__(left)
        self.left = left


class NotRefundable(Refused):
    """Nothing was taken for this order, or a bank is deciding about all of it."""


class TermsFixed(Refused):
    """Somebody has reserved under these terms already, so they stay."""


class CouponRefused(Refused):
    """`reason`: unknown, used_up, ended; or fixed: the terms of this hold stand already."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class PaymentPending(Refused):
    """The money is being taken in this moment; ask again in `retry_after_ms`."""

    def __init__(self, retry_after_ms: int) -> None:
        super().__init__(retry_after_ms)
        self.retry_after_ms = retry_after_ms


class StockHeld(Refused):
    """Lowering below what is held or sold; the numbers say how far it can go."""

    def __init__(self, on_hand: int, held: int, committed: int) -> None:
        super().__init__(on_hand, held, committed)
        self.on_hand = on_hand
        self.held = held
        self.committed = committed


class StockChanged(Refused):
    """A compare-and-set found another number on hand than was expected; this is what there is."""

    def __init__(self, on_hand: int, held: int, committed: int) -> None:
        super().__init__(on_hand, held, committed)
        self.on_hand = on_hand
        self.held = held
        self.committed = committed


class SkuInDrop(Refused):
    """A SKU can be in one open drop at a time."""

    def __init__(self, sku: str, drop: str) -> None:
        super().__init__(sku, drop)
        self.sku = sku
        self.drop = drop


class BadCurrency(Refused):
    """Not an ISO 4217 code that we know."""


class BadSignature(Refused):
    """The body was not signed by the provider, or too long ago."""


class CardNumberFound(Refused):
    """A card number where none may be; `field` says where, never what."""

    def __init__(self, field: str) -> None:
        super().__init__(field)
        self.field = field


class KeyConflict(Refused):
    """The idempotency key was used with another request."""


class KeyInProgress(Refused):
    """The first request with this idempotency key has not ended."""


class Temporary(CommerceError):
    """Not decided; repeat the same attempt after `retry_after_ms`."""

    def __init__(self, retry_after_ms: int) -> None:
        super().__init__(retry_after_ms)
        self.retry_after_ms = retry_after_ms


class Busy(Temporary):
    """The in-flight cap is reached."""


class Unavailable(Temporary):
    """An engine or the payment provider did not answer."""
