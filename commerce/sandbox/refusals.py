"""Stripe's error bodies: `{"error": {"type", "code", "message", "param"}}` with their statuses.

Responsible for the shape of a refusal. It must not decide when to refuse. The SDK picks its
exception class by status and `type`, so both must be Stripe's own words.
"""

from typing import Any


class ApiRefused(Exception):
    """A request is refused; `status` and `body` are what goes over the wire."""

    def __init__(self, status: int, error: dict[str, Any]) -> None:
        super().__init__(status, error.get("code"))
        self.status = status
        self.body: dict[str, Any] = {"error": error}


def invalid(
    message: str, *, param: str | None = None, code: str | None = None, status: int = 400
) -> ApiRefused:
    """`invalid_request_error`: the SDK raises InvalidRequestError."""
    error: dict[str, Any] = {"type": "invalid_request_error", "message": message}
    if code is not None:
        error["code"] = code
        error["doc_url"] = f"https://stripe.com/docs/error-codes/{code.replace('_', '-')}"
    if param is not None:
        error["param"] = param
    return ApiRefused(status, error)


def missing(kind: str, id_: str) -> ApiRefused:
    """404 `resource_missing`."""
    return invalid(f"No such {kind}: '{id_[:80]}'", param="id", code="resource_missing", status=404)


def unauthorised() -> ApiRefused:
    """401: no key or a wrong one."""
    return invalid("Invalid API Key provided.", status=401)


def key_reused() -> ApiRefused:
    """400 `idempotency_error`: the same key with other parameters."""
    message = (
        "Keys for idempotent requests can only be used with the same parameters they were first "
        "used with."
    )
    return ApiRefused(400, {"type": "idempotency_error", "message": message})


def key_busy() -> ApiRefused:
    """409: a request with this key is still running."""
    message = "There is currently another in-progress request using this Idempotent Key."
    return ApiRefused(
        409, {"type": "invalid_request_error", "code": "idempotency_key_in_use", "message": message}
    )


def wrong_intent_state(intent: dict[str, Any], doing: str) -> ApiRefused:
    """400 `payment_intent_unexpected_state` with the intent in the body, as Stripe sends it."""
    status = intent["status"]
    refusal = invalid(
        f"This PaymentIntent could not be {doing} because it has a status of {status}.",
        code="payment_intent_unexpected_state",
    )
    refusal.body["error"]["payment_intent"] = intent
    return refusal


def server_error() -> ApiRefused:
    """500, as the fault `error_before` and `error_after` send it."""
    return ApiRefused(500, {"type": "api_error", "message": "An unknown error occurred."})
