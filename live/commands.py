"""What a viewer may do: join, comment, like, buy, cancel, wait; and the door for all commands.

Responsible for who may do what and for turning refusals into codes; one short method per command.
It must not decide about stock (`commerce.checkout`), pace or sockets (`realtime`). Host commands
are in `console`, because they need the fence and this file should fit on a few screens.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from commerce.checkout import Checkout
from commerce.errors import CommerceError, SoldOut
from commerce.stock import Hold, Line, Press, Promise
from commerce.waiting import Wait as WaitFor
from commerce.waiting import Waitlist
from live.belongings import Belongings, ShowReader
from live.chat import Pace, comment_text
from live.codes import refuse
from live.console import Console
from live.counters import Counters
from live.identity import Identity, Tokens
from live.messages import (
    HOST_COMMANDS,
    VIEWER_COMMANDS,
    Buy,
    Cancel,
    Comment,
    Join,
    Like,
    StopWaiting,
    Wait,
    read,
)
from live.refusals import as_rejected
from live.shows import ShowState
from live.views import hold_view, order_view, wait_view
from realtime.admission import Admission
from realtime.broker import Chat
from realtime.connection import Connection
from realtime.errors import (
    ALREADY_JOINED,
    BUSY,
    NOT_JOINED,
    UNKNOWN_COMMAND,
    BrokerUnavailable,
    Rejected,
)
from realtime.hub import Hub
from realtime.room import Room
from realtime.wheel import BEAT_MS
from realtime.wire import Command, Position

BEAT_S = BEAT_MS // 1000
SAID_MAX = 256
"""Sentences about what is sold out that are kept ready."""


class Commands:
    """Answers every command of every connection on this node. `clock` in milliseconds."""

    def __init__(
        self,
        *,
        hub: Hub,
        checkout: Checkout,
        waits: Waitlist,
        admission: Admission,
        belongings: Belongings,
        shows: ShowReader,
        counters: Counters,
        console: Console,
        tokens: Tokens,
        clock: Callable[[], int],
    ) -> None:
        self._hub = hub
        self._checkout = checkout
        self._waits = waits
        self._admission = admission
        self._belongings = belongings
        self._shows = shows
        self._counters = counters
        self._console = console
        self._tokens = tokens
        self._clock = clock
        self._pace = Pace(clock)
        self._said: dict[tuple[str, int], Rejected] = {}

    async def handle(self, connection: Connection, command: Command) -> object:
        """The result of a command. Raises `Rejected` with a documented code."""
        try:
            return await self._dispatch(connection, command)
        except (CommerceError, BrokerUnavailable) as refused:
            raise as_rejected(refused) from refused

    def at_once(
        self, connection: Connection, command: Command, done: Callable[[object], None]
    ) -> bool:
        """Takes a `buy` without a task of its own; see `realtime.connection.Quick`."""
        who = connection.context
        if command.name != "buy" or not isinstance(who, Identity):
            return False
        press = _press(who, read(Buy, command.params), self._promise(connection))

        def answered(answer: Hold | CommerceError) -> None:
            if isinstance(answer, Hold):
                done(hold_view(answer))
            elif type(answer) is SoldOut and answer.receipt is None:
                done(self._sold_out(answer))
            else:
                done(as_rejected(answer))

        try:
            self._checkout.begin(press, answered)
        except CommerceError as refused:
            raise as_rejected(refused) from refused
        return True

    def _sold_out(self, refused: SoldOut) -> Rejected:
        """The crowd of a drop hears the same sentence, so it is made once."""
        key = refused.sku, refused.left
        said = self._said.get(key)
        if said is None:
            if len(self._said) >= SAID_MAX:
                self._said.clear()
            said = self._said[key] = as_rejected(refused)
        return said

    async def _dispatch(self, connection: Connection, command: Command) -> object:
        name = command.name
        if name == "join":
            return await self.join(connection, read(Join, command.params))
        if name not in VIEWER_COMMANDS and name not in HOST_COMMANDS:
            raise refuse(UNKNOWN_COMMAND, name=name)
        who = connection.context
        if not isinstance(who, Identity) or connection.room is None:
            raise refuse(NOT_JOINED)
        if name in HOST_COMMANDS:
            who.require_host()
            return await self._console.handle(connection, who, name, command.params)
        params = read(VIEWER_COMMANDS[name], command.params)
        match params:
            case Comment():
                return await self.comment(connection, who, params)
            case Like():
                return self.like(connection, params)
            case Buy():
                return await self.buy(who, params, self._promise(connection))
            case Cancel():
                return await self.cancel(who, params)
            case Wait():
                wanted = WaitFor(params.rid, who.id, params.drop, params.sku, params.quantity)
                return wait_view(await self._waits.join(wanted))
            case StopWaiting():
                return wait_view(await self._waits.leave(who.id, params.rid))
        return {"now_ms": self._clock()}

    async def join(self, connection: Connection, join: Join) -> dict[str, Any]:
        """Enter a show's room; what follows the reply is the snapshot or what was missed."""
        if connection.room is not None:
            raise refuse(ALREADY_JOINED)
        who = self._tokens.read(join.token, show=join.show)
        room, fence = await self._room(join.show, who)
        await self._admit(connection, who, room.name)
        own = await self._belongings.of(who.id, join.undecided)
        # Waiting takes seconds in a storm; a room that was put away meanwhile is opened again.
        room = self._hub.loaded(room.name) or await self._hub.room(room.name)
        connection.viewer = who.id
        connection.context = who
        if who.role.runs_shows:
            connection.tags = frozenset({"console"})
            connection.exempt = True
            connection.counted = False
        recovered = connection.enter(
            room, None if join.position is None else Position(*join.position)
        )
        connection.address = ""
        console = {} if fence is None else {"console": {"fence": fence}}
        return {
            **console,
            "you": {"id": who.id, "name": who.name, "role": who.role.value},
            "show": room.name,
            "recovered": recovered,
            "now_ms": self._clock(),
            "beat_s": BEAT_S,
            "holds": [hold_view(hold) for hold in own.holds if hold.show == room.name],
            "orders": [order_view(order) for order in own.orders if order.show == room.name],
            "waits": [wait_view(one) for one in own.waits if one.show == room.name],
            "decided": [
                hold_view(own.decided[rid])
                if rid in own.decided
                else {"rid": rid, "state": "unknown"}
                for rid in join.undecided
            ],
        }

    async def _room(self, show_id: str, who: Identity) -> tuple[Room, int | None]:
        """The show's room, and for a host the newest fence.

        A room that is loaded and knows its show needs no engine: viewers come back while the
        database or the broker is away, and a storm asks neither.
        """
        room = self._hub.loaded(show_id)
        if room is not None and not who.role.runs_shows and room.facts.get("show"):
            return room, None
        show = await self._shows.get(show_id)
        return await self._hub.room(show.id), show.fence if who.role.runs_shows else None

    async def _admit(self, connection: Connection, who: Identity, room: str) -> None:
        """A place in the pace of the room and the address; hosts need none."""
        if who.role.runs_shows:
            return
        verdict = self._admission.join(room, connection.address, self._clock())
        if not verdict.admitted:
            raise refuse(BUSY, retry_after_ms=verdict.wait_ms)
        if verdict.wait_ms:
            await asyncio.sleep(verdict.wait_ms / 1000)

    async def comment(
        self, connection: Connection, who: Identity, comment: Comment
    ) -> dict[str, Any]:
        """Say something; the reply carries what everybody sees and its place."""
        assert connection.room is not None
        text = comment_text(comment.text)  # what cannot be said costs nobody their burst
        if not who.role.runs_shows:
            self._require_open(connection)
            self._pace.check(who.id)
        value = {
            "at": self._clock(),
            "by": {"id": who.id, "name": who.name, "role": who.role.value},
            "text": text,
        }
        before = connection.room.position.chat
        published = await self._hub.publish(
            connection.room.name,
            [Chat(value, f"{who.id}:{comment.rid}", keep=who.role.always_heard)],
        )
        offset = published.numbers[0]
        if offset <= before:  # said already: the answer is what was said then
            said = connection.room.comment(offset)
            if isinstance(said, dict):
                if said["text"] != text:
                    raise refuse("rid_conflict")
                value = said
        return {"offset": offset, "comment": value}

    def _require_open(self, connection: Connection) -> None:
        """A show that has ended takes no comments; before it starts people may talk."""
        assert connection.room is not None
        fact = connection.room.facts.get("show")
        if isinstance(fact, dict) and fact.get("state") == ShowState.ENDED.value:
            raise refuse("show_ended")

    def like(self, connection: Connection, like: Like) -> dict[str, Any]:
        """Likes are summed on this node and published at the room's pace."""
        assert connection.room is not None
        self._counters.like(connection.room.name, like.n)
        return {}

    def _promise(self, connection: Connection) -> Promise | None:
        """What the room was showing at the press."""
        if connection.room is None:
            return None
        pin, show = (connection.room.facts.get(key) for key in ("pin", "show"))
        pin = pin if isinstance(pin, dict) else {}
        started = show.get("started_at") if isinstance(show, dict) else None
        media_ms = max(self._clock() - started, 0) if isinstance(started, int) else None
        return Promise(pin.get("product"), pin.get("pinned_at"), media_ms)

    async def buy(self, who: Identity, buy: Buy, promise: Promise | None = None) -> dict[str, Any]:
        """All lines or nothing; answered when the hold is in the database."""
        hold = await self._checkout.reserve(_press(who, buy, promise))
        return hold_view(hold)

    async def cancel(self, who: Identity, cancel: Cancel) -> dict[str, Any]:
        """Give a hold back."""
        hold: Hold = await self._checkout.cancel(who.id, cancel.rid)
        return hold_view(hold)


def _press(who: Identity, buy: Buy, promise: Promise | None) -> Press:
    return Press(
        rid=buy.rid,
        viewer=who.id,
        drop=buy.drop,
        lines=tuple(Line(line.sku, line.quantity) for line in buy.lines),
        retry=buy.retry,
        total=buy.total,
        promise=promise,
    )
