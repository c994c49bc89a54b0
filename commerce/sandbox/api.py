"""The HTTP side of the sandbox: a few calls of Stripe's API, the hosted page, the control port.

Responsible for keys, idempotency and the order "check, act in one transaction, remember the answer,
misbehave if told to". It must not know the rules of money (`provider`). An answer is stored under
its Idempotency-Key in the transaction of its effect, 500s included, as Stripe does; a request that
failed validation is not stored.
"""

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from commerce.sandbox import forms, objects, page
from commerce.sandbox.faults import Faults
from commerce.sandbox.objects import Object
from commerce.sandbox.provider import CARDS, Provider, new_id
from commerce.sandbox.refusals import (
    ApiRefused,
    invalid,
    key_busy,
    key_reused,
    server_error,
    unauthorised,
)
from commerce.sandbox.store import OPEN_END_S, Store

BODY_BYTES_MAX: Final = 64 * 1024
KEY_CHARS_MAX: Final = 255
KEY_LIVES_S: Final = 24 * 3600
PAGE_MAX: Final = 100

Act = Callable[[forms.Params], Object]
Handler = Callable[[Request], Awaitable[Response]]


class Api:
    """Handlers over one store and its rules."""

    def __init__(
        self,
        store: Store,
        provider: Provider,
        faults: Faults,
        *,
        api_key: str,
        wake: Callable[[], None],
    ) -> None:
        self._store = store
        self._provider = provider
        self._faults = faults
        self._api_key = api_key
        self._wake = wake
        self._running: set[str] = set()

    def app(self) -> Starlette:
        """All routes."""
        get, post = ["GET"], ["POST"]
        v1 = "/v1"
        return Starlette(
            routes=[
                Route(f"{v1}/checkout/sessions", self.create_session, methods=post),
                Route(f"{v1}/checkout/sessions", self.list_sessions, methods=get),
                Route(f"{v1}/checkout/sessions/{{id}}", self.get_session, methods=get),
                Route(f"{v1}/checkout/sessions/{{id}}/expire", self.expire_session, methods=post),
                Route(f"{v1}/payment_intents/{{id}}", self.get_intent, methods=get),
                Route(f"{v1}/payment_intents/{{id}}/capture", self.capture, methods=post),
                Route(f"{v1}/payment_intents/{{id}}/cancel", self.cancel, methods=post),
                Route(f"{v1}/refunds", self.create_refund, methods=post),
                Route(f"{v1}/refunds", self.list_refunds, methods=get),
                Route(f"{v1}/refunds/{{id}}", self.get_refund, methods=get),
                Route(f"{v1}/charges", self.list_charges, methods=get),
                Route(f"{v1}/charges/{{id}}", self.get_charge, methods=get),
                Route(f"{v1}/disputes/{{id}}", self.get_dispute, methods=get),
                Route(f"{v1}/webhook_endpoints", self.create_endpoint, methods=post),
                Route(f"{v1}/events", self.list_events, methods=get),
                Route(f"{v1}/events/{{id}}", self.get_event, methods=get),
                Route("/c/pay/{id}", self.show_page, methods=get),
                Route("/c/pay/{id}", self.use_page, methods=post),
                Route("/sandbox/faults", self.control, methods=["GET", "POST", "DELETE"]),
                Route("/sandbox/disputes", self.dispute, methods=post),
                Route("/sandbox/refunds/{id}", self.finish_refund, methods=post),
                Route("/sandbox/reset", self.reset, methods=post),
                Route("/healthz", self.healthz, methods=get),
                Route("/{rest:path}", self.nowhere, methods=["GET", "POST", "DELETE"]),
            ]
        )

    # Sessions

    async def create_session(self, request: Request) -> Response:
        """POST /v1/checkout/sessions"""
        return await self._answer(
            request, lambda params: objects.public(self._provider.create_session(params))
        )

    async def get_session(self, request: Request) -> Response:
        """GET /v1/checkout/sessions/{id}"""
        id_ = request.path_params["id"]
        return await self._answer(
            request, lambda params: self._session(self._provider.session(id_), params)
        )

    async def expire_session(self, request: Request) -> Response:
        """POST /v1/checkout/sessions/{id}/expire"""
        id_ = request.path_params["id"]
        return await self._answer(
            request, lambda params: self._session(self._provider.expire_session(id_), params)
        )

    async def list_sessions(self, request: Request) -> Response:
        """GET /v1/checkout/sessions"""

        def act(params: forms.Params) -> Object:
            intent = forms.text(params, "payment_intent", default="")
            found = self._page("checkout.session", params, "/v1/checkout/sessions")
            found["data"] = [
                self._session(self._provider.session(one["id"]), params)
                for one in found["data"]
                if not intent or one["payment_intent"] == intent
            ]
            return found

        return await self._answer(request, act)

    # Intents

    async def get_intent(self, request: Request) -> Response:
        """GET /v1/payment_intents/{id}"""
        id_ = request.path_params["id"]
        return await self._answer(
            request, lambda params: objects.public(self._provider.intent(id_))
        )

    async def capture(self, request: Request) -> Response:
        """POST /v1/payment_intents/{id}/capture"""
        id_ = request.path_params["id"]
        return await self._answer(
            request, lambda params: objects.public(self._provider.capture(id_, params))
        )

    async def cancel(self, request: Request) -> Response:
        """POST /v1/payment_intents/{id}/cancel"""
        id_ = request.path_params["id"]
        return await self._answer(
            request, lambda params: objects.public(self._provider.cancel(id_, params))
        )

    # Money that goes back

    async def create_refund(self, request: Request) -> Response:
        """POST /v1/refunds"""
        return await self._answer(
            request, lambda params: objects.public(self._provider.refunds.create(params))
        )

    async def get_refund(self, request: Request) -> Response:
        """GET /v1/refunds/{id}"""
        id_ = request.path_params["id"]
        return await self._answer(
            request, lambda params: objects.public(self._provider.refunds.get(id_))
        )

    async def list_refunds(self, request: Request) -> Response:
        """GET /v1/refunds"""

        def act(params: forms.Params) -> Object:
            wanted = {
                name: forms.text(params, name, default="") for name in ("payment_intent", "charge")
            }
            return self._page(
                "refund",
                params,
                "/v1/refunds",
                lambda one: all(not value or one[name] == value for name, value in wanted.items()),
            )

        return await self._answer(request, act)

    async def get_charge(self, request: Request) -> Response:
        """GET /v1/charges/{id}"""
        id_ = request.path_params["id"]
        return await self._answer(
            request, lambda params: objects.public(self._provider.refunds.find_charge(id_))
        )

    async def list_charges(self, request: Request) -> Response:
        """GET /v1/charges"""

        def act(params: forms.Params) -> Object:
            refunds = self._provider.refunds
            after = forms.text(params, "starting_after", default="")
            if after:
                params = {**params, "starting_after": refunds.find_charge(after)["payment_intent"]}
            found = self._page(
                "payment_intent", params, "/v1/charges", lambda one: bool(one["latest_charge"])
            )
            found["data"] = [
                refunds.charge(self._provider.intent(one["id"])) for one in found["data"]
            ]
            return found

        return await self._answer(request, act)

    async def get_dispute(self, request: Request) -> Response:
        """GET /v1/disputes/{id}"""
        id_ = request.path_params["id"]
        return await self._answer(
            request, lambda params: objects.public(self._provider.refunds.get_dispute(id_))
        )

    # Events and endpoints

    async def create_endpoint(self, request: Request) -> Response:
        """POST /v1/webhook_endpoints: the answer to the creation shows the secret, once."""

        def act(params: forms.Params) -> Object:
            events = params.get("enabled_events")
            if not isinstance(events, list) or not events:
                raise invalid("Missing required param: enabled_events.", param="enabled_events")
            endpoint = self._provider.create_endpoint(forms.text(params, "url"), list(events))
            return {**objects.public(endpoint), "secret": endpoint["_secret"]}

        return await self._answer(request, act)

    async def list_events(self, request: Request) -> Response:
        """GET /v1/events"""
        return await self._answer(request, lambda params: self._page("event", params, "/v1/events"))

    async def get_event(self, request: Request) -> Response:
        """GET /v1/events/{id}"""

        def act(params: forms.Params) -> Object:
            event = self._store.get("event", request.path_params["id"])
            if event is None:
                raise invalid("No such event", param="id", code="resource_missing", status=404)
            return objects.public(event)

        return await self._answer(request, act)

    # The hosted page

    async def show_page(self, request: Request) -> Response:
        """GET /c/pay/{id}: the page, for a person."""
        return self._person(request, lambda session: None)

    async def use_page(self, request: Request) -> Response:
        """POST /c/pay/{id}: one of the buttons; a plain form, so that a script can press it too."""
        body = await self._body(request)
        params = forms.parse(body)
        action, card = str(params.get("action", "pay")), str(params.get("card", ""))
        card = card.replace(" ", "")

        def act(session: Object) -> None:
            if action == "pay" and card in CARDS:
                self._provider.pay(session, card)
            elif action in ("approve", "reject"):
                self._provider.answer_bank(session, approve=action == "approve")

        if action == "cancel":
            with self._store.transaction():
                session = self._store.get("checkout.session", request.path_params["id"])
            if session is not None and session["cancel_url"]:
                return RedirectResponse(session["cancel_url"], status_code=303)
        return self._person(request, act)

    # The control port

    async def control(self, request: Request) -> Response:
        """/sandbox/faults: POST arms one, GET lists, DELETE clears. Needs the API key."""
        try:
            self._authorise(request)
            if request.method == "POST":
                try:
                    body = json.loads(await self._body(request))
                except ValueError:
                    raise invalid("The body is not JSON.") from None
                self._faults.arm(body)
            elif request.method == "DELETE":
                self._faults.clear()
        except ApiRefused as refused:
            return JSONResponse(refused.body, refused.status)
        return JSONResponse({"faults": self._faults.listed()})

    async def dispute(self, request: Request) -> Response:
        """POST /sandbox/disputes: a bank takes money back, or decides. Needs the API key."""
        return await self._control(request, self._provider.refunds.dispute)

    async def finish_refund(self, request: Request) -> Response:
        """POST /sandbox/refunds/{id}: `{status}`; the bank takes or returns it. Needs the key."""

        def act(body: Any) -> Object:
            made = self._provider.refunds.get(request.path_params["id"])
            status = body.get("status") if isinstance(body, dict) else None
            if status not in ("succeeded", "failed"):
                raise invalid("status is succeeded or failed", param="status")
            return self._provider.refunds.finish(made, status)

        return await self._control(request, act)

    async def _control(self, request: Request, act: Callable[[Any], Object]) -> Response:
        try:
            self._authorise(request)
            try:
                body = json.loads(await self._body(request))
            except ValueError:
                raise invalid("The body is not JSON.") from None
            with self._store.transaction():
                answer = objects.public(act(body))
        except ApiRefused as refused:
            return JSONResponse(refused.body, refused.status)
        self._wake()
        return JSONResponse(answer)

    async def reset(self, request: Request) -> Response:
        """POST /sandbox/reset: forget everything, as a new account. Needs the API key."""
        try:
            self._authorise(request)
        except ApiRefused as refused:
            return JSONResponse(refused.body, refused.status)
        self._faults.clear()
        with self._store.transaction():
            self._store.wipe()
        return JSONResponse({"ok": True})

    async def healthz(self, request: Request) -> Response:
        """It runs."""
        return JSONResponse({"ok": True})

    async def nowhere(self, request: Request) -> Response:
        """Stripe's 404."""
        where = f"{request.method}: {request.url.path[:200]}"
        refused = invalid(f"Unrecognized request URL ({where}).", status=404)
        return JSONResponse(refused.body, refused.status)

    # Steps

    async def _answer(self, request: Request, act: Act) -> Response:
        where = f"{request.method} {request.url.path}"
        headers = {"Request-Id": new_id("req", 14)}
        try:
            self._authorise(request)
            if (slow := self._faults.take("delay", where)) is not None:
                await asyncio.sleep(slow.ms / 1000)
            if self._faults.take("error_before", where) is not None:
                raise server_error()
            text = await self._body(request)
            if request.method == "GET":
                status, answer = self._act(act, text, None, "")
            else:
                status, answer, replayed = self._once(request, act, where, text)
                if replayed:
                    headers["Idempotent-Replayed"] = "true"
        except ApiRefused as refused:
            return JSONResponse(refused.body, refused.status, headers)
        self._wake()
        if (lost := self._faults.take("time_out", where)) is not None:
            await asyncio.sleep(lost.ms / 1000)
            status, answer = 504, json.dumps(server_error().body)
        return Response(answer, status, headers, media_type="application/json")

    def _once(self, request: Request, act: Act, where: str, text: str) -> tuple[int, str, bool]:
        """(status, body, replayed) of a request that changes something."""
        key = request.headers.get("idempotency-key", "")
        if len(key) > KEY_CHARS_MAX:
            raise invalid("Idempotency keys can be at most 255 characters long.")
        sha = hashlib.sha256(f"{where}\n{text}".encode()).hexdigest()
        if not key:
            return (*self._act(act, text, None, sha), False)
        if key in self._running:
            raise key_busy()
        known = self._store.key(key)
        if known is not None:
            if known[0] != sha:
                raise key_reused()
            return known[1] or 500, known[2] or "", True
        self._running.add(key)
        try:
            return (*self._act(act, text, key, sha, where), False)
        finally:
            self._running.discard(key)

    def _act(
        self, act: Act, text: str, key: str | None, sha: str, where: str = ""
    ) -> tuple[int, str]:
        """Act and remember, in one transaction. Raises `ApiRefused` for what is not remembered."""
        params = forms.parse(text)
        with self._store.transaction():
            self._provider.key = key
            try:
                status, body = 200, act(params)
            except ApiRefused as refused:
                if "param" in refused.body["error"]:
                    raise
                status, body = refused.status, refused.body
            finally:
                self._provider.key = None
            if where and status == 200 and self._faults.take("error_after", where) is not None:
                status, body = 500, server_error().body
            answer = json.dumps(body)
            if key is not None:
                now = self._provider.now_s()
                self._store.prune_keys(now - KEY_LIVES_S)
                self._store.keep_key(key, sha, status, answer, now)
        return status, answer

    def _person(self, request: Request, act: Callable[[Object], None]) -> Response:
        language = page.language(request.headers.get("accept-language", ""))
        id_ = request.path_params["id"]
        try:
            with self._store.transaction():
                session = self._provider.session(id_)
                act(session)
                session = self._provider.session(id_)
                intent = self._provider.intent_of(session)
        except ApiRefused:
            return HTMLResponse(page.gone(language), 404, page.HEADERS)
        self._wake()
        if request.method == "POST" and session["status"] == "complete":
            back = session["success_url"].replace("{CHECKOUT_SESSION_ID}", id_)
            return RedirectResponse(back, status_code=303)
        now_s = self._provider.now_s()
        return HTMLResponse(page.hosted(session, intent, language, now_s), 200, page.HEADERS)

    def _session(self, session: Object, params: forms.Params) -> Object:
        expand = params.get("expand", [])
        wanted = {"payment_intent", "data.payment_intent"} & set(
            expand if isinstance(expand, list) else [expand]
        )
        return objects.public(session, self._provider.intent_of(session) if wanted else None)

    def _page(
        self,
        kind: str,
        params: forms.Params,
        url: str,
        fits: Callable[[Object], bool] = lambda body: True,
    ) -> Object:
        limit = forms.integer(params, "limit", default=10)
        if not 1 <= limit <= PAGE_MAX:
            raise invalid("Invalid integer: limit", param="limit")
        created: Any = params.get("created", {})
        since, until = 0, OPEN_END_S
        if isinstance(created, dict):
            since = forms.integer(created, "gte", default=since)
            until = forms.integer(created, "lte", default=until)
        after = forms.text(params, "starting_after", default="") or None
        types = params.get("types", [])
        found: list[Object] = []
        for body in self._store.newest(kind, after=after, since=since, until=until):
            if (types and body.get("type") not in types) or not fits(body):
                continue
            found.append(objects.public(body))
            if len(found) > limit:
                break
        return objects.listing(url, found[:limit], more=len(found) > limit)

    def _authorise(self, request: Request) -> None:
        given = request.headers.get("authorization", "")
        if given != f"Bearer {self._api_key}":
            raise unauthorised()

    async def _body(self, request: Request) -> str:
        if request.method == "GET":
            return request.url.query
        parts, size = [], 0
        async for part in request.stream():
            size += len(part)
            if size > BODY_BYTES_MAX:
                raise invalid("The request is too large.", status=413)
            parts.append(part)
        try:
            return b"".join(parts).decode()
        except UnicodeDecodeError:
            raise invalid("The request is not UTF-8.") from None
