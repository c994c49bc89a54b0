"""Shows in the database, and the fence that keeps old consoles from acting.

Responsible for reading and changing shows, and for the order of a host's actions. It must not know
rooms. Each action carries the console's fence and a number that grows: one compare-and-set on the
show's row decides whether it is the newest console and a new action, in the same transaction as
its effect, so a reconnecting tablet cannot pin an old product again.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from commerce.database_sql import Database
from commerce.keep import Keep, keep_answer
from commerce.outbox_sql import SqlOutbox
from live.codes import refuse
from live.schema_sql import show
from live.shows import PAGE_MAX, Change, Show, ShowState


class SqlShows:
    """The shows of this shop. `clock` in milliseconds; `new_id` makes ids."""

    def __init__(
        self, database: Database, clock: Callable[[], int], new_id: Callable[[], str]
    ) -> None:
        self._database = database
        self._clock = clock
        self._new_id = new_id

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
        row = {
            "id": id_ or f"s_{self._new_id()}",
            "title": title,
            "state": ShowState.SCHEDULED.value,
            "video": video,
            "hidden": hidden,
            "starts_at": starts_at,
            "announcement": "",
            "fence": 0,
            "action": 0,
            "created_at": self._clock(),
        }
        async with self._database.begin() as connection:
            await connection.execute(insert(show).values(**row))
            made = await _get(connection, str(row["id"]))
            assert made is not None
            return await keep_answer(keep, connection, made)

    async def get(self, show_id: str) -> Show:
        """Raises `Rejected` (unknown_show)."""
        async with self._database.read() as connection:
            found = await _get(connection, show_id)
        if found is None:
            raise refuse("unknown_show")
        return found

    async def page(
        self, *, hidden: bool, limit: int = PAGE_MAX, after: str | None = None
    ) -> list[Show]:
        """Newest first; `after` is the id of the last one of the page before."""
        wanted = select(show).order_by(show.c.created_at.desc(), show.c.id.desc()).limit(limit)
        if not hidden:
            wanted = wanted.where(show.c.hidden.is_(False))
        async with self._database.read() as connection:
            if after is not None:
                last = await _get(connection, after)
                if last is not None:
                    wanted = wanted.where(
                        or_(
                            show.c.created_at < last.created_at,
                            (show.c.created_at == last.created_at) & (show.c.id < last.id),
                        )
                    )
            rows = (await connection.execute(wanted)).all()
        return [_show(row) for row in rows]

    async def active(self) -> list[Show]:
        """Shows that have not ended, newest first, bounded."""
        wanted = (
            select(show)
            .where(show.c.state != ShowState.ENDED.value)
            .order_by(show.c.created_at.desc())
            .limit(PAGE_MAX)
        )
        async with self._database.read() as connection:
            return [_show(row) for row in (await connection.execute(wanted)).all()]

    async def change(
        self, show_id: str, values: Mapping[str, Any], keep: Keep[Show] | None = None
    ) -> Show:
        """Title, video, start and hidden, from the API. Raises `Rejected` (unknown_show)."""
        async with self._database.begin() as connection:
            if values:
                await connection.execute(update(show).where(show.c.id == show_id).values(**values))
            found = await _get(connection, show_id)
            if found is None:
                raise refuse("unknown_show")
            return await keep_answer(keep, connection, found)

    async def take_console(self, show_id: str, fence: int | None) -> tuple[int, int]:
        """(fence, n): a new fence, or the old one if `fence` is still the newest."""
        async with self._database.begin() as connection:
            found = await _get(connection, show_id, lock=True)
            if found is None:
                raise refuse("unknown_show")
            if fence is not None and fence == found.fence and fence > 0:
                return found.fence, found.action
            await connection.execute(
                update(show).where(show.c.id == show_id).values(fence=found.fence + 1, action=0)
            )
            return found.fence + 1, 0

    async def act(self, show_id: str, fence: int, n: int, change: Change) -> Show:
        """Carry out the console's action `n`, once: `change` gives the columns to write.

        Raises `Rejected`: unknown_show, console_taken, replayed_action, and what `change` raises;
        then nothing happened and the number is still free.
        """
        async with self._database.begin() as connection:
            found = await _get(connection, show_id, lock=True)
            if found is None:
                raise refuse("unknown_show")
            if fence != found.fence:
                raise refuse("console_taken", fence=found.fence)
            if n <= found.action:
                raise refuse("replayed_action", n=found.action)
            values = change(found)
            await connection.execute(
                update(show)
                .where(show.c.id == show_id, show.c.fence == fence, show.c.action < n)
                .values(action=n, **values)
            )
            if values.get("state", found.state) != found.state:
                fact = {"show": show_id, "title": found.title, "state": str(values["state"])}
                await SqlOutbox.add(connection, "show", show_id, fact, self._clock(), tell=False)
        return found

    @asynccontextmanager
    async def locked(self, show_id: str) -> AsyncIterator[Show | None]:
        """The show, locked against other nodes while its facts are computed and published.

        Without it a node that read before a host's action could publish after it and bring the old
        pin back. Held for one publish (about a millisecond).
        """
        async with self._database.begin() as connection:
            yield await _get(connection, show_id, lock=True)


async def _get(connection: AsyncConnection, show_id: str, *, lock: bool = False) -> Show | None:
    wanted = select(show).where(show.c.id == show_id)
    if lock:
        wanted = wanted.with_for_update()  # ignored by SQLite, where a transaction is exclusive
    row = (await connection.execute(wanted)).first()
    return None if row is None else _show(row)


def _show(row: Any) -> Show:
    return Show(
        id=row.id,
        title=row.title,
        state=ShowState(row.state),
        video=row.video,
        hidden=row.hidden,
        starts_at=row.starts_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        pinned=row.pinned,
        pinned_at=row.pinned_at,
        announcement=row.announcement,
        announced_at=row.announced_at,
        fence=row.fence,
        action=row.action,
        created_at=row.created_at,
    )
