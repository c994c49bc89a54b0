"""HTTP for shows: list, create, change, and what is on sale in one.

Responsible for the part of a show that is not live. Going live, pinning and selling go over the
wire (`console`), because they need the console's fence.
"""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from commerce.checkout import Checkout
from commerce.raffle import Draw
from live.chat import clean
from live.codes import refuse
from live.http import Call, Route
from live.shows import PAGE_MAX, TITLE_CHARS_MAX, Show, Shows, ShowState
from live.stage import Stage
from realtime.wire import INT_MAX

VIDEO_CHARS_MAX: Final = 2_000

Title = Annotated[str, Meta(min_length=1, max_length=TITLE_CHARS_MAX)]
Video = Annotated[
    str, Meta(max_length=VIDEO_CHARS_MAX, pattern=r"^(https?://[^\s]+|/[^\s/][^\s]*)$(?!\n)")
]
"""An HLS address; one that starts with / is on this server."""
Instant = Annotated[int, Meta(ge=0, le=INT_MAX)]


class ShowView(Struct, frozen=True):
    """A show."""

    id: str
    title: str
    state: ShowState
    video: str | None
    hidden: bool
    starts_at: int | None
    started_at: int | None
    ended_at: int | None


class ShowList(Struct, frozen=True):
    """Shows, newest first; `next` continues the list."""

    shows: list[ShowView]
    next: str | None


class NewShow(Struct, frozen=True):
    """A show to come."""

    title: Title
    video: Video | None = None
    starts_at: Instant | None = None
    hidden: bool = False


class ShowChange(Struct, frozen=True):
    """What is to change; what is left out stays."""

    title: Title | UnsetType = UNSET
    video: Video | UnsetType | None = UNSET
    starts_at: Instant | UnsetType | None = UNSET
    hidden: bool | UnsetType = UNSET


class ShowQuery(Struct, frozen=True):
    """Paging, and whether a host wants hidden shows too."""

    after: Annotated[str, Meta(max_length=64)] | None = None
    limit: Annotated[int, Meta(ge=1, le=PAGE_MAX)] = 50
    hidden: bool = False


class DropView(Struct, frozen=True):
    """A sale of a show."""

    id: str
    title: str
    opens_at: int
    closes_at: int | None
    closed_at: int | None
    hold_s: int
    per_viewer: int | None
    lines: list[dict[str, Any]]


class DropList(Struct, frozen=True):
    """The sales of a show, in the order they were opened."""

    drops: list[DropView]


class RaffleView(Struct, frozen=True):
    """A raffle and all that is needed to recompute it: PROTOCOL.md, chapter 4."""

    draws_at: int
    seed_sha: str
    seed: str | None
    drawn_at: int | None
    entered: int
    entries: list[str]
    """Ids of all entries by rank, once it is drawn."""


class ShowsApi:
    """Handlers."""

    def __init__(
        self,
        shows: Shows,
        stage: Stage,
        checkout: Checkout,
        draw: Callable[[str], Awaitable[Draw]],
    ) -> None:
        self._draw = draw
        self._shows = shows
        self._stage = stage
        self._checkout = checkout

    def routes(self) -> list[Route]:
        """The table."""
        one = "/api/v1/shows/{show}"
        return [
            Route("GET", "/api/v1/shows", "list_shows", "Shows, newest first.",
                  self.list_shows, ShowList, query=ShowQuery, tag="shows"),
            Route("POST", "/api/v1/shows", "create_show", "Schedule a show.",
                  self.create_show, ShowView, who="host", body=NewShow, status=201,
                  key="optional", tag="shows"),
            Route("GET", one, "get_show", "One show.", self.get_show, ShowView,
                  codes=("unknown_show",), tag="shows"),
            Route("PATCH", one, "change_show", "Change title, video, start or visibility.",
                  self.change_show, ShowView, who="host", body=ShowChange, key="optional",
                  codes=("unknown_show",), tag="shows"),
            Route("GET", one + "/drops", "list_drops", "The sales of a show.",
                  self.list_drops, DropList, codes=("unknown_show",), tag="shows"),
            Route("GET", "/api/v1/drops/{drop}/raffle", "get_raffle",
                  "A raffle: what was promised before, and who was drawn in which order.",
                  self.get_raffle, RaffleView, codes=("unknown_drop",), tag="shows"),
        ]  # fmt: skip

    async def list_shows(self, call: Call) -> ShowList:
        """Hidden shows are for hosts who ask for them."""
        query: ShowQuery = call.query
        hidden = query.hidden and call.who is not None and call.who.role.runs_shows
        found = await self._shows.page(hidden=hidden, limit=query.limit, after=query.after)
        more = found[-1].id if len(found) == query.limit else None
        return ShowList([_view(show) for show in found], more)

    async def get_raffle(self, call: Call) -> RaffleView:
        """For everybody: ids of entries say nothing about people."""
        draw = await self._draw(call.path["drop"])
        raffle = draw.drop.raffle
        assert raffle is not None
        return RaffleView(
            raffle.draws_at,
            raffle.seed_sha,
            raffle.seed,
            raffle.drawn_at,
            draw.entered,
            list(draw.entries),
        )

    async def create_show(self, call: Call) -> ShowView:
        """Scheduled; it goes live from the console."""
        body: NewShow = call.body
        made = await self._shows.create(
            title=_title(body.title),
            video=body.video,
            starts_at=body.starts_at,
            hidden=body.hidden,
            keep=call.keep(_view),
        )
        self._stage.refresh_soon(made.id)
        return _view(made)

    async def get_show(self, call: Call) -> ShowView:
        """Hidden ones too: who knows the id was told it."""
        return _view(await self._shows.get(call.path["show"]))

    async def change_show(self, call: Call) -> ShowView:
        """What viewers see changes at once."""
        body: ShowChange = call.body
        values = {
            name: value
            for name, value in msgspec.structs.asdict(body).items()
            if value is not UNSET
        }
        if isinstance(values.get("title"), str):
            values["title"] = _title(values["title"])
        changed = await self._shows.change(call.path["show"], values, call.keep(_view))
        await self._stage.refresh(changed.id)
        return _view(changed)

    async def list_drops(self, call: Call) -> DropList:
        """Open and closed."""
        show = await self._shows.get(call.path["show"])
        drops = await self._checkout.drops(show.id, open_only=False)
        return DropList(
            [
                DropView(
                    id=drop.id,
                    title=drop.title,
                    opens_at=drop.opens_at,
                    closes_at=drop.closes_at,
                    closed_at=drop.closed_at,
                    hold_s=drop.hold_s,
                    per_viewer=drop.per_viewer,
                    lines=[{"sku": line.sku, "units": line.units} for line in drop.lines],
                )
                for drop in drops
            ]
        )


def _title(text: str) -> str:
    title = clean(text)
    if not title:
        raise refuse("bad_params", field="title")
    return title


def _view(show: Show) -> ShowView:
    return ShowView(
        id=show.id,
        title=show.title,
        state=show.state,
        video=show.video,
        hidden=show.hidden,
        starts_at=show.starts_at,
        started_at=show.started_at,
        ended_at=show.ended_at,
    )
