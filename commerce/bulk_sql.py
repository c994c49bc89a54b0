"""Many rows in one statement: the rows travel as one JSON parameter.

Responsible for inserting and changing some hundred rows in one round trip on both dialects. It
must not know any table; types are read from the columns.

Why so: one value list per row costs one bind parameter per value, and for the 256 winners of a
batch (13 columns) building and parsing those 3,328 parameters costs more than the insert itself.
One JSON text is parsed in C on both sides and the statement's text never changes, so it is prepared
once. `json_each` is part of SQLite since 3.38, `jsonb_to_recordset` of PostgreSQL since 9.5.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Protocol, runtime_checkable

import msgspec
from sqlalchemy import JSON, BigInteger, Boolean, Column, Integer, Table, TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

ROWS_MAX: Final = 1_000
"""Rows per statement; more are sent in several."""

_encoder = msgspec.json.Encoder()


def _postgres_type(column: Column[Any]) -> str:
    if isinstance(column.type, Boolean):
        return "boolean"
    if isinstance(column.type, BigInteger | Integer):
        return "bigint"
    if isinstance(column.type, JSON):
        return "json"
    return "text"


def _source(dialect: str, table: Table, columns: tuple[str, ...]) -> str:
    """A SELECT that yields the rows of the parameter `rows`, typed like the table's columns."""
    if dialect == "postgresql":
        shape = ", ".join(f'"{name}" {_postgres_type(table.c[name])}' for name in columns)
        picked = ", ".join(f'r."{name}"' for name in columns)
        return f"SELECT {picked} FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r({shape})"
    picked = ", ".join(f"json_extract(value, '$.{name}') AS \"{name}\"" for name in columns)
    # "WHERE true" parts the SELECT from ON CONFLICT (SQLite's grammar needs it)
    return f"SELECT {picked} FROM json_each(:rows) WHERE true"


@lru_cache(maxsize=64)
def _insert(dialect: str, table: Table, columns: tuple[str, ...], tail: str) -> TextClause:
    names = ", ".join(f'"{name}"' for name in columns)
    source = _source(dialect, table, columns)
    return text(f'INSERT INTO "{table.name}" ({names}) {source} {tail}')


@lru_cache(maxsize=64)
def _add(
    dialect: str, table: Table, key: tuple[str, ...], column: str, unless: str
) -> tuple[TextClause, TextClause]:
    source = _source(dialect, table, (*key, column))
    match = " AND ".join(f't."{name}" = x."{name}"' for name in key)
    order = ", ".join(f't."{name}"' for name in key)
    rest = f" AND NOT ({unless})" if unless else ""
    lock = f'SELECT 1 FROM "{table.name}" t JOIN ({source}) x ON {match} ORDER BY {order}'
    change = (
        f'UPDATE "{table.name}" AS t SET "{column}" = t."{column}" + x."{column}" '
        f"FROM ({source}) AS x WHERE {match}{rest}"
    )
    return text(f"{lock} FOR UPDATE OF t"), text(change)


@dataclass(frozen=True, slots=True)
class Step:
    """A statement that needs no answer of another, and whether its rows are to be counted."""

    statement: TextClause
    rows: str = ""
    """The parameter `rows`; empty: there is none."""
    counted: bool = True


@dataclass(frozen=True, slots=True)
class Question:
    """A statement that needs no answer of another, and whose rows are wanted."""

    statement: TextClause
    given: Mapping[str, str]


@runtime_checkable
class Together(Protocol):
    """A connection that can be handed several statements at once (see `apart_sql`)."""

    async def ask_together(self, questions: Sequence[Question]) -> list[list[Sequence[Any]]]:
        """The rows of each, as the driver has them. What one raises ends them all."""

    async def run_together(self, steps: Sequence[Step]) -> list[int]:
        """Rows that each has changed. What one raises ends them all."""


async def ask_all(
    conn: AsyncConnection, questions: Sequence[Question]
) -> list[list[Sequence[Any]]]:
    """The rows of each question, columns in their order; numbers and texts only.

    A Boolean is whatever the engine says for one.
    """
    if isinstance(conn, Together):
        return await conn.ask_together(questions)
    return [list((await conn.execute(one.statement, one.given)).all()) for one in questions]


async def run_steps(conn: AsyncConnection, steps: Sequence[Step]) -> list[int]:
    """Runs them in order; how many rows each has changed, of those that are counted."""
    if isinstance(conn, Together):
        counts = await conn.run_together(steps)
    else:
        counts = [
            (
                await conn.execute(step.statement, {"rows": step.rows} if step.rows else None)
            ).rowcount
            for step in steps
        ]
    return [count for step, count in zip(steps, counts, strict=True) if step.counted]


def insert_steps(
    conn: AsyncConnection,
    table: Table,
    rows: Sequence[Mapping[str, object]],
    *,
    tail: str = "",
) -> list[Step]:
    """What `insert_rows` runs."""
    parts = [rows[start : start + ROWS_MAX] for start in range(0, len(rows), ROWS_MAX)]
    return [
        Step(
            _insert(conn.dialect.name, table, tuple(part[0]), tail), _encoder.encode(part).decode()
        )
        for part in parts
    ]


async def insert_rows(
    conn: AsyncConnection,
    table: Table,
    rows: Sequence[Mapping[str, object]],
    *,
    tail: str = "",
) -> int:
    """Inserts the rows in their order (so locks are taken in that order); how many were written.

    `tail` is what follows the rows: an ON CONFLICT clause that both dialects understand. Every
    row has the same names. Raises what the table refuses (IntegrityError).
    """
    return sum(await run_steps(conn, insert_steps(conn, table, rows, tail=tail)))


def add_steps(
    conn: AsyncConnection,
    table: Table,
    rows: Sequence[Mapping[str, object]],
    *,
    key: tuple[str, ...],
    column: str,
    unless: str = "",
) -> list[Step]:
    """What `add_to_rows` runs."""
    steps = []
    for start in range(0, len(rows), ROWS_MAX):
        part = rows[start : start + ROWS_MAX]
        lock, change = _add(conn.dialect.name, table, key, column, unless)
        packed = _encoder.encode(part).decode()
        if len(part) > 1 and conn.dialect.name == "postgresql":
            steps.append(Step(lock, packed, counted=False))
        steps.append(Step(change, packed))
    return steps


async def add_to_rows(
    conn: AsyncConnection,
    table: Table,
    rows: Sequence[Mapping[str, object]],
    *,
    key: tuple[str, ...],
    column: str,
    unless: str = "",
) -> int:
    """Adds each row's `column` (may be negative) to the row of that key; how many changed.

    `unless` is a condition over `t` (the row) and `x` (what is added) under which a row is left
    alone. No two rows have the same key. PostgreSQL takes the locks in order of the key first, so
    that two transactions never wait for each other.
    """
    steps = add_steps(conn, table, rows, key=key, column=column, unless=unless)
    return sum(await run_steps(conn, steps))


def texts(values: Iterable[str]) -> str:
    """A list of texts as the one parameter that `in_texts` takes apart again."""
    return _encoder.encode(list(values)).decode()


def in_texts(conn: AsyncConnection, column: str, name: str) -> str:
    """A condition: `column` is one of the texts in parameter `name`, however many they are."""
    if conn.dialect.name == "postgresql":
        return f"{column} IN (SELECT jsonb_array_elements_text(CAST(:{name} AS jsonb)))"
    return f"{column} IN (SELECT value FROM json_each(:{name}))"


def rows_of_texts(conn: AsyncConnection, name: str) -> str:
    """A source of rows for a FROM: the texts in parameter `name`, in the column `value`."""
    if conn.dialect.name == "postgresql":
        return f"(SELECT jsonb_array_elements_text(CAST(:{name} AS jsonb)) AS value)"
    return f"json_each(:{name})"
