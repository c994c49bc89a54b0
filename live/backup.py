"""A copy of the whole database: what it holds, and why one is not taken.

Responsible for the words alone; `backup_sql` makes copies and restores them. It must not know
tables.
"""

from dataclasses import dataclass


class BadBackup(Exception):
    """The file or the database is not what restoring needs; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a file holds. `at` is milliseconds since 1970."""

    revision: str
    at: int
    rows: dict[str, int]
