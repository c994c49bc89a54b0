"""HTTP in one place: who asks, what the body must be, how a refusal looks, what a repetition gets.

Responsible for turning a table of `Route`s into Starlette routes: bearer token, role, body and
query checked by msgspec against the same types that `/openapi.json` shows, card numbers refused
before anything reads the text, `Idempotency-Key`, errors as RFC 9457 problem documents with the
codes of the wire. Handlers get a checked `Call` and return a struct; they must not know Starlette.
"""

import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route as StarletteRoute

from commerce.card_numbers import refuse_card_numbers
from commerce.errors import CommerceError
from commerce.idempotency import LEASE_MS, Idempotency, Replay, request_sha
from commerce.keep import Keep
from live.codes import CODES, refuse
from live.identity import Identity, Tokens
from live.messages import field_of
from live.refusals import as_rejected
from realtime.errors import BrokerUnavailable, Rejected

log = logging.getLogger(__name__)

BODY_BYTES_MAX: Final = 256 * 1024
KEY: Final = re.compile(r"[\x21-\x7e]{1,255}")
"""An Idempotency-Key: printable ASCII without spaces."""
PROBLEM_TYPE: Final = "application/problem+json"
T = TypeVar("T")


class NoQuery(msgspec.Struct, frozen=True):
    """A route without query parameters."""


@dataclass(frozen=True, slots=True)
class Call:
    """One checked request."""

    who: Identity | None
    path: Mapping[str, str]
    query: Any
    body: Any
    raw: bytes
    headers: Mapping[str, str]
    peer: str
    answer: "Answer | None" = None
    """Where the answer is kept for repetitions; None: the request has no Idempotency-Key."""

    @property
    def me(self) -> Identity:
        """Who asks; the route has said that somebody must."""
        assert self.who is not None
        return self.who

    def keep(self, render: Callable[[T], Any]) -> "Keep[T] | None":
        """For the transaction of the effect: keeps what `render` makes of its result."""
        return None if self.answer is None else self.answer.keeping(render)


class Answer:
    """The answer to a request with a key; `kept` once a transaction has taken it along."""

    def __init__(self, idempotency: Idempotency, scope: str, key: str, status: int) -> None:
        self._idempotency = idempotency
        self._place = (scope, key, status)
        self.kept: bytes | None = None

    def keeping(self, render: Callable[[T], Any]) -> Keep[T]:
        """See `Call.keep`."""

        async def keep(transaction: Any, result: T) -> None:
            body = msgspec.json.encode(render(result))
            await self._idempotency.keep(transaction, *self._place, body.decode())
            self.kept = body

        return keep


@dataclass(frozen=True, slots=True)
class Text:
    """An answer that is not JSON, whole or in pieces; `filename`: to be saved under that name."""

    media: str
    content: str | AsyncIterator[str] | AsyncIterator[bytes]
    filename: str = ""


Handler = Callable[[Call], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Route:
    """One operation of the API, as the server runs it and as `/openapi.json` describes it."""

    method: str
    path: str
    name: str
    summary: str
    handler: Handler
    result: Any
    who: str = "anyone"
    """anyone, somebody (any token) or host."""
    body: Any = None
    """A msgspec type for JSON; None for no body."""
    raw: bool = False
    """The body is handed over as bytes."""
    media: str = "application/json"
    """Content type of the body."""
    body_bytes_max: int = BODY_BYTES_MAX
    query: type[msgspec.Struct] = NoQuery
    status: int = 200
    key: str = "none"
    """Idempotency-Key: none, optional or required."""
    lease_ms: int = LEASE_MS
    """How long its key stays taken if the node dies in the middle. Below the slowest answer only
    where the handler may run twice at once with one effect."""
    codes: tuple[str, ...] = ()
    """Refusals beside those that every route of its kind can give."""
    produces: str = "application/json"
    """Content type of the answer; others than JSON are `Text`."""
    scan: bool = True
    """Look for card numbers in the body."""
    tag: str = field(default="shop")


class Api:
    """Makes Starlette routes of a table."""

    def __init__(self, tokens: Tokens, idempotency: Idempotency, clock: Callable[[], int]) -> None:
        self._tokens = tokens
        self._idempotency = idempotency
        self._clock = clock

    def starlette(self, route: Route) -> StarletteRoute:
        """One route of the application."""

        async def endpoint(request: Request) -> Response:
            try:
                return await self._answer(route, request)
            except Rejected as rejected:
                return problem(rejected)
            except (CommerceError, BrokerUnavailable) as refused:
                return problem(as_rejected(refused))
            except ClientDisconnect:
                return Response(status_code=400)

        return StarletteRoute(route.path, endpoint, methods=[route.method], name=route.name)

    async def _answer(self, route: Route, request: Request) -> Response:
        who = self._who(route, request)
        query = _query(route, request)
        raw = await _read(route, request)
        body = _body(route, raw)
        call = Call(
            who=who,
            path=request.path_params,
            query=query,
            body=body,
            raw=raw,
            headers=request.headers,
            peer=request.client.host if request.client else "",
        )
        key = request.headers.get("idempotency-key")
        if route.key == "none" or (key is None and route.key == "optional"):
            return _json(route.status, await route.handler(call))
        if key is None or KEY.fullmatch(key) is None:
            raise refuse("key_missing")
        return await self._once(route, request, call, key)

    async def _once(self, route: Route, request: Request, call: Call, key: str) -> Response:
        """Carry out once per key; a repetition gets the stored answer."""
        scope = f"{call.who.id if call.who else call.peer} {route.method} {route.name}"
        sha = request_sha(request.url.path.encode(), call.raw)
        begun = await self._idempotency.begin(scope, key, sha, lease_ms=route.lease_ms)
        if isinstance(begun, Replay):
            return Response(
                begun.body,
                begun.status,
                media_type="application/json" if begun.status < 400 else PROBLEM_TYPE,
                headers={"idempotent-replayed": "true"},
            )
        answer = Answer(self._idempotency, scope, key, route.status)
        try:
            result = await route.handler(replace(call, answer=answer))
            response = _json(route.status, result)
        except (Rejected, CommerceError, BrokerUnavailable) as refused:
            rejected = refused if isinstance(refused, Rejected) else as_rejected(refused)
            response = problem(rejected)
            if CODES[rejected.code].temporary:
                await self._idempotency.abandon(scope, key)  # leaves an answer that was kept
                return response
            if answer.kept is not None:
                return response  # what failed came after the effect: a repetition hears of that
        except BaseException:
            await self._idempotency.abandon(scope, key)
            raise
        if answer.kept is not None:
            return Response(answer.kept, route.status, media_type="application/json")
        await self._idempotency.finish(
            scope, key, response.status_code, bytes(response.body).decode()
        )
        return response

    def _who(self, route: Route, request: Request) -> Identity | None:
        header = request.headers.get("authorization", "")
        scheme, _, token = header.partition(" ")
        if not header and route.who == "anyone":
            return None
        if scheme.lower() != "bearer":
            if route.who == "anyone":
                return None
            raise refuse("token_missing")
        try:
            who = self._tokens.read(token.strip())
        except Rejected:
            if route.who == "anyone":
                return None  # a page with an old token may still look at what is public
            raise
        if route.who == "host":
            who.require_host()
        return who


def _query(route: Route, request: Request) -> Any:
    given = dict(request.query_params)
    try:
        query = msgspec.convert(given, route.query, strict=False)
    except msgspec.ValidationError as wrong:
        raise refuse("bad_params", field=field_of(wrong)) from None
    for name in given:
        if getattr(query, name, given) is None:  # the text "null" is not a way to leave one out
            raise refuse("bad_params", field=name)
    return query


async def _read(route: Route, request: Request) -> bytes:
    if route.body is None and not route.raw:
        return b""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != route.media:
        raise refuse("unsupported_media_type", expected=route.media)
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > route.body_bytes_max:
            raise refuse("too_large", limit=route.body_bytes_max)
        chunks.append(chunk)
    return b"".join(chunks)


def _body(route: Route, raw: bytes) -> Any:
    if route.body is None:
        return None
    try:
        loose = msgspec.json.decode(raw)
        if route.scan:
            refuse_card_numbers(loose)
        return msgspec.convert(loose, route.body, strict=True)
    except msgspec.ValidationError as wrong:
        raise refuse("bad_params", field=field_of(wrong)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise refuse("bad_params", field="") from None


def _json(status: int, value: Any) -> Response:
    if isinstance(value, Text):
        return _text(status, value)
    if status == 204 or value is None:
        return Response(status_code=204)
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def _text(status: int, value: Text) -> Response:
    headers = {"cache-control": "no-store"}
    if value.filename:
        headers["content-disposition"] = f'attachment; filename="{value.filename}"'
    if isinstance(value.content, str):
        return Response(value.content, status, headers, media_type=value.media)
    return StreamingResponse(value.content, status, headers, media_type=value.media)


def problem(rejected: Rejected) -> Response:
    """An RFC 9457 problem document with the code of the wire."""
    row = CODES[rejected.code]
    body: dict[str, Any] = {
        "type": f"/problems#{rejected.code}",
        "title": row.sentence,
        "status": row.status,
        "code": rejected.code,
        "detail": rejected.message,
    }
    headers: dict[str, str] = {}
    if rejected.details:
        body["details"] = rejected.details
    if rejected.retry_after_ms is not None:
        body["retry_after_ms"] = rejected.retry_after_ms
        headers["retry-after"] = str(max(1, -(-rejected.retry_after_ms // 1000)))
    if row.status == 401:
        headers["www-authenticate"] = "Bearer"
    return Response(msgspec.json.encode(body), row.status, headers=headers, media_type=PROBLEM_TYPE)
