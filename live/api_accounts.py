"""HTTP for people: guests, sign-in, who am I, the shop's own row.

Responsible for handing out tokens. A guest needs only a name; an account signs in with a password
or a one-time link. Sign-in attempts are paced per address, because each costs 260 ms of argon2.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Annotated, Final

from msgspec import Meta, Struct

from commerce.catalog import Catalog
from commerce.money import currency_exponent
from live.accounts import LOGIN_CHARS_MAX, PASSWORD_CHARS_MAX, Account, Accounts
from live.chat import clean
from live.codes import refuse
from live.http import Call, Route
from live.identity import ACCOUNT_TTL_S, GUEST_TTL_S, NAME_CHARS_MAX, Identity, Role, Tokens
from live.imports import settle_currency
from live.shop import Shop, ShopDesk
from realtime.rate_limit import TokenBucket

SIGN_INS_PER_S: Final = 1
SIGN_IN_BURST: Final = 10
GUESTS_PER_S: Final = 50
GUEST_BURST: Final = 2_000
"""Generous: a whole audience may sit behind one address, and a guest costs one signature."""
ADDRESSES_MAX: Final = 10_000


class Person(Struct, frozen=True):
    """Somebody."""

    id: str
    name: str
    role: Role


class NewGuest(Struct, frozen=True):
    """A name to be shown in the chat."""

    name: Annotated[str, Meta(min_length=1, max_length=NAME_CHARS_MAX)]


class SignedIn(Struct, frozen=True):
    """A token and whose it is."""

    token: str
    expires_in_s: int
    viewer: Person


class SignIn(Struct, frozen=True):
    """Login and password, or a one-time link's token."""

    login: Annotated[str, Meta(max_length=LOGIN_CHARS_MAX)] | None = None
    password: Annotated[str, Meta(max_length=PASSWORD_CHARS_MAX)] | None = None
    link: Annotated[str, Meta(max_length=128)] | None = None


class ShopBody(Struct, frozen=True):
    """The shop: name, currency (ISO 4217), price of shipping an order in minor units."""

    name: Annotated[str, Meta(min_length=1, max_length=120)]
    currency: Annotated[str, Meta(pattern=r"^[A-Z]{3}$(?!\n)")]
    shipping_amount: Annotated[int, Meta(ge=0, le=100_000_000)]


class AccountsApi:
    """Handlers. `clock` in milliseconds; `new_id` makes ids."""

    def __init__(
        self,
        accounts: Accounts,
        shop: ShopDesk,
        catalog: Catalog,
        tokens: Tokens,
        clock: Callable[[], int],
        new_id: Callable[[], str],
    ) -> None:
        self._accounts = accounts
        self._shop = shop
        self._catalog = catalog
        self._tokens = tokens
        self._clock = clock
        self._new_id = new_id
        self._sign_ins: OrderedDict[str, TokenBucket] = OrderedDict()
        self._guests: OrderedDict[str, TokenBucket] = OrderedDict()

    def routes(self) -> list[Route]:
        """The table."""
        return [
            Route(
                "POST", "/api/v1/guests", "create_guest", "Become a guest with a name.",
                self.create_guest, SignedIn, body=NewGuest, status=201,
                codes=("bad_params", "card_number", "rate_limited"), tag="people",
            ),
            Route(
                "POST", "/api/v1/sessions", "create_session",
                "Sign in with login and password, or with a one-time link.",
                self.create_session, SignedIn, body=SignIn, status=201,
                codes=("bad_credentials", "rate_limited"), scan=False, tag="people",
            ),
            Route(
                "GET", "/api/v1/me", "get_me", "Who this token belongs to.",
                self.get_me, Person, who="somebody", tag="people",
            ),
            Route("GET", "/api/v1/shop", "get_shop", "Name, currency, shipping price.",
                  self.get_shop, ShopBody),
            Route(
                "PUT", "/api/v1/shop", "put_shop", "Change the shop's own row.",
                self.put_shop, ShopBody, who="host", body=ShopBody, key="optional",
                codes=("bad_currency", "wrong_currency"),
            ),
        ]  # fmt: skip

    def _pace(
        self, buckets: OrderedDict[str, TokenBucket], peer: str, per_s: int, burst: int
    ) -> None:
        bucket = buckets.pop(peer, None) or TokenBucket(per_s, burst, self._clock())
        buckets[peer] = bucket
        if len(buckets) > ADDRESSES_MAX:
            buckets.popitem(last=False)
        if not bucket.take(self._clock()):
            raise refuse("rate_limited", retry_after_ms=bucket.wait_ms())

    async def create_guest(self, call: Call) -> SignedIn:
        """A signed identity for a viewer without an account; a guest's own token renames them."""
        self._pace(self._guests, call.peer, GUESTS_PER_S, GUEST_BURST)
        name = clean(call.body.name)
        if not name:
            raise refuse("bad_params", field="name")
        known = call.who is not None and call.who.role is Role.GUEST
        id_ = call.me.id if known else f"g_{self._new_id()}"
        guest = Identity(id_, name, Role.GUEST)
        return self._signed_in(guest, GUEST_TTL_S)

    async def create_session(self, call: Call) -> SignedIn:
        """A token for an account."""
        self._pace(self._sign_ins, call.peer, SIGN_INS_PER_S, SIGN_IN_BURST)
        body: SignIn = call.body
        found: Account | None = None
        if body.link is not None:
            found = await self._accounts.use_link(body.link)
        elif body.login is not None and body.password is not None:
            found = await self._accounts.check_password(body.login, body.password)
        else:
            raise refuse("bad_params", field="login")
        if found is None:
            raise refuse("bad_credentials")
        return self._signed_in(Identity(found.id, found.name, found.role), ACCOUNT_TTL_S)

    def _signed_in(self, who: Identity, ttl_s: int) -> SignedIn:
        return SignedIn(self._tokens.issue(who, ttl_s), ttl_s, Person(who.id, who.name, who.role))

    async def get_me(self, call: Call) -> Person:
        """The token's owner."""
        return Person(call.me.id, call.me.name, call.me.role)

    async def get_shop(self, call: Call) -> ShopBody:
        """The shop."""
        found = await self._shop.get()
        return ShopBody(found.name, found.currency, found.shipping_amount)

    async def put_shop(self, call: Call) -> ShopBody:
        """Change it; the currency only while there is nothing for sale."""
        body: ShopBody = call.body
        currency_exponent(body.currency)
        await settle_currency(self._catalog, self._shop, body.currency)
        found = await self._shop.put(Shop(body.name, body.currency, body.shipping_amount))
        return ShopBody(found.name, found.currency, found.shipping_amount)
