"""Money that goes back: refunds and disputes as Stripe makes them, and what it refuses.

Responsible for refunds (at once, later, or failed after all), for chargebacks that the control port
opens and closes, and for the charge that both are about. It must not know HTTP. A charge has no row
of its own: it is the intent seen from the bank, so the two can never disagree.

    refund    succeeded | pending -> succeeded | failed
    dispute   needs_response -> won | lost
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

from commerce.sandbox import forms, objects
from commerce.sandbox.faults import Faults
from commerce.sandbox.objects import Object
from commerce.sandbox.refusals import invalid, missing
from commerce.sandbox.store import Store

CLOSED: Final = ("won", "lost")


class Refunds:
    """All calls run inside one store transaction that the caller opened."""

    def __init__(
        self,
        store: Store,
        faults: Faults,
        *,
        new_id: Callable[[str], str],
        clock: Callable[[], int],
        emit: Callable[[str, Object], None],
        late_ms: int,
    ) -> None:
        self._store = store
        self._faults = faults
        self._new_id = new_id
        self._clock = clock
        self._emit = emit
        self._late_ms = late_ms

    def create(self, params: forms.Params) -> Object:
        """POST /v1/refunds. Raises `ApiRefused`: not captured, or more than is left."""
        intent = self._intent(forms.text(params, "payment_intent"))
        if intent["status"] != "succeeded":
            raise invalid(
                f"This PaymentIntent ({intent['id']}) does not have a successful charge to refund.",
                code="payment_intent_unexpected_state",
            )
        left = intent["amount_received"] - self.refunded(intent["id"])
        if left <= 0:
            raise invalid(
                f"Charge {intent['latest_charge']} has already been refunded.",
                code="charge_already_refunded",
            )
        if self._open_dispute(intent["id"]):
            raise invalid(
                f"Charge {intent['latest_charge']} has been charged back; cannot issue a refund.",
                code="charge_disputed",
            )
        amount = forms.integer(params, "amount", default=left)
        if not 0 < amount <= left:
            raise invalid(
                f"Refund amount ({amount}) is greater than unrefunded amount on charge ({left}).",
                code="amount_too_large",
            )
        made = objects.refund(
            id_=self._new_id("re"),
            created=self._clock() // 1000,
            amount=amount,
            currency=intent["currency"],
            charge=intent["latest_charge"],
            intent=intent["id"],
            metadata=forms.metadata(params),
        )
        self._schedule(made)
        self._store.put(made)
        self._emit("refund.created", made)
        if made["status"] == "succeeded":
            self._emit("charge.refunded", self.charge(intent))
        return made

    def get(self, id_: str) -> Object:
        """GET /v1/refunds/{id}. Raises `ApiRefused` (404)."""
        found = self._store.get("refund", id_)
        if found is None:
            raise missing("refund", id_)
        return found

    def settle(self, id_: str) -> None:
        """A refund's time has come: the bank took it, or sent it back."""
        made = self._store.get("refund", id_)
        if made is None or made["status"] != "pending":
            return
        self.finish(made, made["_outcome"])

    def finish(self, made: Object, status: str) -> Object:
        """To "succeeded" or "failed"; a bank may also return one that had succeeded."""
        made["status"] = status
        made["_failure"] = "lost_or_stolen_card" if status == "failed" else None
        self._store.put(made)
        self._emit("refund.updated", made)
        self._emit("charge.refund.updated", made)
        if status == "failed":
            self._emit("refund.failed", made)
        else:
            self._emit("charge.refunded", self.charge(self._intent(made["payment_intent"])))
        return made

    def refunded(self, intent: str) -> int:
        """What has gone back or is on its way."""
        return sum(one["amount"] for one in self.of_intent(intent) if one["status"] != "failed")

    def of_intent(self, intent: str) -> Iterator[Object]:
        """Newest first."""
        yield from self._store.of_intent("refund", intent)

    def charge(self, intent: Object) -> Object:
        """The intent's charge as it is now."""
        gone = sum(
            one["amount"] for one in self.of_intent(intent["id"]) if one["status"] == "succeeded"
        )
        return objects.charge(intent, refunded=gone, disputed=self._open_dispute(intent["id"]))

    def find_charge(self, id_: str) -> Object:
        """GET /v1/charges/{id}. Raises `ApiRefused` (404)."""
        intent = self._store.intent_of_charge(id_)
        if intent is None:
            raise missing("charge", id_)
        return self.charge(intent)

    # Disputes, by the control port

    def dispute(self, body: Any) -> Object:
        """Open one: `{intent, amount?}`; or close one: `{dispute, status}`. Raises `ApiRefused`."""
        if not isinstance(body, dict):
            raise invalid("An object is expected.")
        if "dispute" in body:
            known = self.get_dispute(str(body["dispute"]))
            if body.get("status") not in CLOSED:
                raise invalid("status is won or lost", param="status")
            known["status"] = body["status"]
            self._store.put(known)
            self._emit("charge.dispute.closed", known)
            return known
        intent = self._intent(str(body.get("intent", "")))
        made = objects.dispute(
            id_=self._new_id("dp"),
            created=self._clock() // 1000,
            amount=int(body.get("amount") or intent["amount_received"]),
            currency=intent["currency"],
            charge=intent["latest_charge"],
            intent=intent["id"],
        )
        self._store.put(made)
        self._emit("charge.dispute.created", made)
        return made

    def get_dispute(self, id_: str) -> Object:
        """GET /v1/disputes/{id}. Raises `ApiRefused` (404)."""
        found = self._store.get("dispute", id_)
        if found is None:
            raise missing("dispute", id_)
        return found

    def _open_dispute(self, intent: str) -> bool:
        found = self._store.of_intent("dispute", intent)
        return any(one["status"] not in CLOSED for one in found)

    def _schedule(self, made: Object) -> None:
        late = self._faults.take("refund_pending", made["payment_intent"])
        broken = self._faults.take("refund_failed", made["payment_intent"])
        fault = broken or late
        if fault is None:
            return
        made["status"] = "pending"
        made["_outcome"] = "failed" if broken is not None else "succeeded"
        self._store.set_timer(made["id"], self._clock() + (fault.ms or self._late_ms))

    def _intent(self, id_: str) -> Object:
        found = self._store.get("payment_intent", id_)
        if found is None:
            raise missing("payment_intent", id_)
        return found
