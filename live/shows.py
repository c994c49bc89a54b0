"""A show and what viewers are told of it: states, moves, facts. Pure.

Responsible for the table of a show's states and for turning what the record says (a show, its
pinned product, its drops) into the facts of the control lane. It must not know where either is
stored. Facts are functions of the record and absolute, so a room that lost everything is made
whole by computing them again, and a host's action is "change the record, then show the record".
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import StrEnum
from html import unescape
from types import MappingProxyType
from typing import Any, Final, Protocol

from commerce.catalog import Product, SkuCard
from commerce.keep import Keep
from commerce.stock import Drop, Levels, Raffle
from live.codes import refuse

TITLE_CHARS_MAX: Final = 160
PAGE_MAX: Final = 100
DESCRIPTION_CHARS_MAX: Final = 280
"""Of a product on the card; the whole text is at /api/v1/products/{id}."""


class ShowState(StrEnum):
    """Where a show is."""

    SCHEDULED = "scheduled"
    LIVE = "live"
    PAUSED = "paused"
    ENDED = "ended"


MOVES: Final = MappingProxyType(
    {
        "go_live": (frozenset({ShowState.SCHEDULED, ShowState.PAUSED}), ShowState.LIVE),
        "pause": (frozenset({ShowState.LIVE}), ShowState.PAUSED),
        "end": (
            frozenset({ShowState.SCHEDULED, ShowState.LIVE, ShowState.PAUSED}),
            ShowState.ENDED,
        ),
    }
)
"""command: (from, to). Anything else is refused."""
ON_AIR: Final = frozenset({ShowState.LIVE, ShowState.PAUSED})


@dataclass(frozen=True, slots=True)
class Show:
    """One show, as the record has it. Times in milliseconds."""

    id: str
    title: str
    state: ShowState
    video: str | None
    hidden: bool
    starts_at: int | None
    started_at: int | None
    ended_at: int | None
    pinned: str | None
    pinned_at: int | None
    announcement: str
    announced_at: int | None
    fence: int
    action: int
    created_at: int


Change = Callable[[Show], Mapping[str, Any]]
"""From a show to the columns to write; may refuse."""


class Shows(Protocol):
    """The shows of this shop; `shows_sql` keeps them."""

    async def create(
        self,
        *,
        title: str,
        video: str | None = None,
        starts_at: int | None = None,
        hidden: bool = False,
        id_: str | None = None,
        keep: Keep[Show] | None = None,
    ) -> Show:
        """A scheduled show."""
        ...

    async def get(self, show_id: str) -> Show:
        """Raises `Rejected` (unknown_show)."""
        ...

    async def page(self, *, hidden: bool, limit: int, after: str | None = None) -> list[Show]:
        """Newest first; `after` is the id of the last one of the page before."""
        ...

    async def active(self) -> list[Show]:
        """Shows that have not ended, newest first, bounded."""
        ...

    async def change(
        self, show_id: str, values: Mapping[str, Any], keep: Keep[Show] | None = None
    ) -> Show:
        """Title, video, start and hidden, from the API. Raises `Rejected` (unknown_show)."""
        ...

    async def take_console(self, show_id: str, fence: int | None) -> tuple[int, int]:
        """(fence, n): a new fence, or the old one if `fence` is still the newest."""
        ...

    async def act(self, show_id: str, fence: int, n: int, change: Change) -> Show:
        """Carry out the console's action `n`, once: `change` gives the columns to write.

        Raises `Rejected`: unknown_show, console_taken, replayed_action, and what `change` raises;
        then nothing happened and the number is still free.
        """
        ...

    def locked(self, show_id: str) -> AbstractAsyncContextManager[Show | None]:
        """The show, locked against other nodes while its facts are computed and published."""
        ...


def moved(show: Show, command: str, now: int) -> dict[str, Any]:
    """What go_live, pause or end writes. Raises `Rejected` (wrong_state, show_ended)."""
    allowed, target = MOVES[command]
    if show.state not in allowed:
        if show.state is ShowState.ENDED:
            raise refuse("show_ended")
        raise refuse("wrong_state", state=show.state.value)
    values: dict[str, Any] = {"state": target.value}
    if target is ShowState.LIVE and show.started_at is None:
        values["started_at"] = now
    if target is ShowState.ENDED:
        values |= {"ended_at": now, "pinned": None, "pinned_at": None}
    return values


def running(show: Show) -> dict[str, Any]:
    """Writes nothing. Raises `Rejected` (show_ended)."""
    if show.state is ShowState.ENDED:
        raise refuse("show_ended")
    return {}


def on_air(show: Show) -> dict[str, Any]:
    """Writes nothing. Raises `Rejected` (show_ended, show_not_live)."""
    running(show)
    if show.state not in ON_AIR:
        raise refuse("show_not_live")
    return {}


def show_fact(show: Show, currency: str) -> dict[str, object]:
    """Fact `show`."""
    return {
        "id": show.id,
        "title": show.title,
        "state": show.state.value,
        "video": show.video,
        "currency": currency,
        "starts_at": show.starts_at,
        "started_at": show.started_at,
        "ended_at": show.ended_at,
    }


def announcement_fact(show: Show) -> dict[str, object] | None:
    """Fact `announcement`."""
    return {"text": show.announcement, "at": show.announced_at} if show.announcement else None


def pin_fact(show: Show, product: Product | None) -> dict[str, object] | None:
    """Fact `pin`: a snapshot of the product, so that no viewer has to ask for it."""
    if product is None or show.pinned is None:
        return None
    return {
        "product": product.id,
        "title": product.title,
        "description": _plain(product.description_html),
        "image": product.images[0].url if product.images else None,
        "skus": [
            {
                "sku": sku.sku,
                "title": sku.title,
                "price": {"amount": sku.amount, "currency": sku.currency},
                "compare_at": (
                    None
                    if sku.compare_at is None
                    else {"amount": sku.compare_at, "currency": sku.currency}
                ),
            }
            for sku in product.skus
            if sku.active
        ],
        "pinned_at": show.pinned_at,
    }


def drop_state(drop: Drop, levels: Levels, now: int) -> str:
    """scheduled, open, sold_out or closed, as of `now`."""
    if drop.closed_at is not None or (drop.closes_at is not None and now >= drop.closes_at):
        return "closed"
    if now < drop.opens_at:
        return "scheduled"
    known = [levels[line.sku].available for line in drop.lines if line.sku in levels]
    if len(known) == len(drop.lines) and all(left <= 0 for left in known):
        return "sold_out"
    return "open"


def drop_fact(
    drop: Drop, cards: Mapping[str, SkuCard], levels: Levels, now: int
) -> dict[str, object]:
    """Fact `drop:<id>`."""
    return {
        "id": drop.id,
        "title": drop.title,
        "state": drop_state(drop, levels, now),
        "opens_at": drop.opens_at,
        "closes_at": drop.closes_at,
        "hold_s": drop.hold_s,
        "per_viewer": drop.per_viewer,
        "lines": [
            {
                "sku": line.sku,
                "product": cards[line.sku].product,
                "title": card_title(cards[line.sku]),
                "image": cards[line.sku].image_url or None,
                "price": {
                    "amount": cards[line.sku].sku.amount,
                    "currency": cards[line.sku].sku.currency,
                },
                "units": line.units,
            }
            for line in drop.lines
            if line.sku in cards
        ],
        **({} if drop.raffle is None else {"raffle": raffle_view(drop.raffle)}),
    }


def raffle_view(raffle: Raffle) -> dict[str, object]:
    """What everybody may know of a raffle; the seed once it is drawn."""
    return {
        "draws_at": raffle.draws_at,
        "seed_sha": raffle.seed_sha,
        "seed": raffle.seed,
        "drawn_at": raffle.drawn_at,
        "entries": raffle.entries,
    }


def card_title(card: SkuCard) -> str:
    """The product's title, with the variant's where there are several."""
    return f"{card.product_title} – {card.sku.title}" if card.sku.title else card.product_title


def next_change_at(drops: Iterable[Drop], now: int) -> int | None:
    """When the state of one of these drops next changes by time alone."""
    instants = [
        at
        for drop in drops
        if drop.closed_at is None
        for at in (drop.opens_at, drop.closes_at, drop.raffle.draws_at if drop.raffle else None)
        if at is not None and at > now
    ]
    return min(instants, default=None)


def _plain(html: str) -> str:
    """The text of sanitised HTML, cut to what a card can show."""
    text: list[str] = []
    inside = False
    for character in html:
        if character == "<":
            inside = True
            text.append(" ")
        elif character == ">":
            inside = False
        elif not inside:
            text.append(character)
    words = " ".join(unescape("".join(text)).split())
    return (
        words if len(words) <= DESCRIPTION_CHARS_MAX else words[: DESCRIPTION_CHARS_MAX - 1] + "…"
    )
