"""HTTP for webhooks: the shop's other systems, what was sent to them, and sending it again.

Responsible for endpoints and their deliveries, for hosts. What is told is `live.webhooks`'s, how it
is sent `commerce.webhook_courier`'s. A secret can be read again by a host: it is derived, not
stored, and losing it must not mean losing the endpoint.

An address must be https, or http in the shop's own network (a loopback, private or local name). The
link-local addresses at which clouds keep their credentials are refused.
"""

import ipaddress
from collections.abc import Callable
from typing import Annotated, Final
from urllib.parse import urlsplit

from msgspec import UNSET, Meta, Struct, UnsetType

from commerce.webhooks import (
    TEST_TYPE,
    TYPES,
    Delivery,
    DeliveryState,
    Endpoint,
    Stopped,
    Webhooks,
    secret_of,
)
from live.codes import refuse
from live.http import Call, Route
from live.webhooks import body_of
from realtime.wire import INT_MAX

PAGE_MAX: Final = 200
URL_CHARS_MAX: Final = 1_024
LOCAL_NAMES: Final = (".internal", ".local", ".localhost", ".lan", ".home.arpa")

Url = Annotated[str, Meta(min_length=8, max_length=URL_CHARS_MAX)]
Types = Annotated[list[Annotated[str, Meta(max_length=64)]], Meta(max_length=len(TYPES))]


class NewEndpoint(Struct, frozen=True):
    """An address that wants to hear; without types it hears everything."""

    url: Url
    types: Types = []


class EndpointChange(Struct, frozen=True):
    """What is to change; what is left out stays. `paused` false also revives one that was gone."""

    url: Url | UnsetType = UNSET
    types: Types | UnsetType = UNSET
    paused: bool | UnsetType = UNSET


class EndpointView(Struct, frozen=True):
    """An endpoint and how it fares; times in milliseconds since 1970."""

    id: str
    url: str
    types: list[str]
    stopped: Stopped | None
    created_at: int
    rotated_at: int | None
    delivered_at: int | None
    pending: int
    dead: int


class EndpointList(Struct, frozen=True):
    """All endpoints, oldest first, and what they may ask for."""

    endpoints: list[EndpointView]
    types: list[str]


class EndpointSecret(Struct, frozen=True):
    """What its receiver verifies signatures with."""

    id: str
    secret: str


class DeliveryView(Struct, frozen=True):
    """One event on its way. `answer` is the last status, or why there was none."""

    event: int
    id: str
    type: str
    key: str
    state: DeliveryState
    tries: int
    answer: str
    next_at: int | None
    created_at: int
    updated_at: int
    body: str


class DeliveryList(Struct, frozen=True):
    """Deliveries, newest first; `next` continues the list."""

    deliveries: list[DeliveryView]
    next: int | None


class DeliveryQuery(Struct, frozen=True):
    """Paging, and one state alone."""

    state: DeliveryState | None = None
    after: Annotated[int, Meta(ge=0, le=INT_MAX)] | None = None
    limit: Annotated[int, Meta(ge=1, le=PAGE_MAX)] = 50


class Replayed(Struct, frozen=True):
    """How many deliveries go out again."""

    replayed: int


class WebhooksApi:
    """Handlers. `master` is the server's secret; `clock` in milliseconds."""

    def __init__(self, webhooks: Webhooks, master: str, clock: Callable[[], int]) -> None:
        self._webhooks = webhooks
        self._master = master
        self._clock = clock

    def routes(self) -> list[Route]:
        """The table."""
        all_ = "/api/v1/webhooks"
        one = all_ + "/{endpoint}"
        bad = ("bad_webhook_url",)
        unknown = ("unknown_webhook",)
        return [
            Route("GET", all_, "list_webhooks", "Endpoints of the shop's other systems.",
                  self.list_webhooks, EndpointList, who="host", tag="webhooks"),
            Route("POST", all_, "create_webhook", "Tell another system what happens here.",
                  self.create_webhook, EndpointView, who="host", body=NewEndpoint, status=201,
                  key="optional", codes=(*bad, "too_many_webhooks"), tag="webhooks"),
            Route("PATCH", one, "change_webhook", "Change address or types, pause or resume.",
                  self.change_webhook, EndpointView, who="host", body=EndpointChange,
                  key="optional", codes=(*bad, *unknown), tag="webhooks"),
            Route("DELETE", one, "delete_webhook", "Forget an endpoint and its deliveries.",
                  self.delete_webhook, None, who="host", status=204, key="optional",
                  codes=unknown, tag="webhooks"),
            Route("GET", one + "/secret", "get_webhook_secret", "The signing secret.",
                  self.get_secret, EndpointSecret, who="host", codes=unknown, tag="webhooks"),
            Route("POST", one + "/rotation", "rotate_webhook_secret",
                  "A new signing secret; the old one signs as well for a day.",
                  self.rotate, EndpointSecret, who="host", key="required", codes=unknown,
                  tag="webhooks"),
            Route("POST", one + "/test", "test_webhook", "Send a test event.",
                  self.test, None, who="host", status=204, key="optional", codes=unknown,
                  tag="webhooks"),
            Route("GET", one + "/deliveries", "list_deliveries", "What was sent, newest first.",
                  self.list_deliveries, DeliveryList, who="host", query=DeliveryQuery,
                  codes=unknown, tag="webhooks"),
            Route("POST", one + "/replay", "replay_dead", "Send all again that were given up.",
                  self.replay_dead, Replayed, who="host", key="optional", codes=unknown,
                  tag="webhooks"),
            Route("POST", one + "/deliveries/{event:int}/replay", "replay_delivery",
                  "Send one again.", self.replay_one, Replayed, who="host", key="optional",
                  codes=unknown, tag="webhooks"),
        ]  # fmt: skip

    async def list_webhooks(self, call: Call) -> EndpointList:
        """With what waits and what was given up."""
        found = await self._webhooks.endpoints()
        counts = await self._webhooks.counts()
        return EndpointList([_view(one, counts.get(one.id, {})) for one in found], list(TYPES))

    async def create_webhook(self, call: Call) -> EndpointView:
        """It hears what happens from now on."""
        body: NewEndpoint = call.body
        _check(body.url, body.types)
        made = await self._webhooks.add_endpoint(body.url, body.types, self._clock())
        if made is None:
            raise refuse("too_many_webhooks")
        return _view(made, {})

    async def change_webhook(self, call: Call) -> EndpointView:
        """What waits goes to the new address."""
        body: EndpointChange = call.body
        values: dict[str, object] = {}
        if body.url is not UNSET:
            values["url"] = body.url
        if body.types is not UNSET:
            values["types"] = body.types
        if body.paused is not UNSET:
            values["stopped"] = Stopped.PAUSED.value if body.paused else None
        _check(body.url or None, body.types or [])
        changed = await self._webhooks.change_endpoint(call.path["endpoint"], values)
        return await self._seen(changed)

    async def delete_webhook(self, call: Call) -> None:
        """Nothing more is sent, not even what waits."""
        if not await self._webhooks.remove_endpoint(call.path["endpoint"]):
            raise refuse("unknown_webhook")

    async def get_secret(self, call: Call) -> EndpointSecret:
        """Of the present generation."""
        return self._secret(await self._webhooks.endpoint(call.path["endpoint"]))

    async def rotate(self, call: Call) -> EndpointSecret:
        """Once per Idempotency-Key."""
        found = await self._webhooks.endpoint(call.path["endpoint"])
        if found is None:
            raise refuse("unknown_webhook")
        now = self._clock()
        return self._secret(await self._webhooks.rotate(found.id, found.generation, now))

    async def test(self, call: Call) -> None:
        """It goes out like any other."""
        id_, now = call.path["endpoint"], self._clock()
        if await self._webhooks.endpoint(id_) is None:
            raise refuse("unknown_webhook")
        await self._webhooks.test(id_, body_of(TEST_TYPE, now, {"endpoint": id_}), now)

    async def list_deliveries(self, call: Call) -> DeliveryList:
        """With the body as it was signed."""
        query: DeliveryQuery = call.query
        found = await self._webhooks.deliveries(
            await self._known(call), query.state, query.after, query.limit
        )
        more = found[-1].event if len(found) == query.limit else None
        return DeliveryList([_delivery(one) for one in found], more)

    async def replay_dead(self, call: Call) -> Replayed:
        """In their order."""
        id_ = await self._known(call)
        return Replayed(await self._webhooks.replay(id_, None, self._clock()))

    async def replay_one(self, call: Call) -> Replayed:
        """Also one that was taken; 0 if it is on its way already."""
        id_ = await self._known(call)
        event = int(call.path["event"])
        return Replayed(await self._webhooks.replay(id_, event, self._clock()))

    async def _known(self, call: Call) -> str:
        id_ = call.path["endpoint"]
        if await self._webhooks.endpoint(id_) is None:
            raise refuse("unknown_webhook")
        return id_

    async def _seen(self, endpoint: Endpoint | None) -> EndpointView:
        if endpoint is None:
            raise refuse("unknown_webhook")
        counts = await self._webhooks.counts()
        return _view(endpoint, counts.get(endpoint.id, {}))

    def _secret(self, endpoint: Endpoint | None) -> EndpointSecret:
        if endpoint is None:
            raise refuse("unknown_webhook")
        return EndpointSecret(
            endpoint.id, secret_of(self._master, endpoint.id, endpoint.generation)
        )


def _check(url: str | None, types: list[str]) -> None:
    """Raises `Rejected` (bad_webhook_url, bad_params)."""
    if unknown := [one for one in types if one not in TYPES]:
        raise refuse("bad_params", field="types", unknown=unknown[0])
    if url is not None and not allowed(url):
        raise refuse("bad_webhook_url")


def allowed(url: str) -> bool:
    """Whether events may be sent there: https, or http within the shop's own network."""
    if any(letter.isspace() or not letter.isprintable() for letter in url):
        return False
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").rstrip(".")
        _ = parts.port
    except ValueError:
        return False
    if parts.scheme not in {"http", "https"} or not host or parts.username or parts.fragment:
        return False
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        own = "." not in host or host.endswith(LOCAL_NAMES)
        return parts.scheme == "https" or own
    mapped = getattr(address, "ipv4_mapped", None) or address
    if mapped.is_link_local or mapped.is_unspecified or mapped.is_multicast:
        return False
    return parts.scheme == "https" or mapped.is_private


def _view(endpoint: Endpoint, counts: dict[DeliveryState, int]) -> EndpointView:
    return EndpointView(
        id=endpoint.id,
        url=endpoint.url,
        types=list(endpoint.types),
        stopped=endpoint.stopped,
        created_at=endpoint.created_at,
        rotated_at=endpoint.rotated_at,
        delivered_at=endpoint.delivered_at,
        pending=counts.get(DeliveryState.PENDING, 0),
        dead=counts.get(DeliveryState.DEAD, 0),
    )


def _delivery(one: Delivery) -> DeliveryView:
    return DeliveryView(
        event=one.event,
        id=one.uid,
        type=one.type,
        key=one.key,
        state=one.state,
        tries=one.tries,
        answer=one.answer,
        next_at=one.next_at if one.state is DeliveryState.PENDING else None,
        created_at=one.created_at,
        updated_at=one.updated_at,
        body=one.body,
    )
