"""Accounts of people who run shows: the words and the port (`accounts_sql` keeps them).

Responsible for what an account is and how its owner can prove it: a password, or a link that works
once. It must not know tokens, hashing or HTTP.
"""

from dataclasses import dataclass
from typing import Final, Protocol

from live.identity import Role

LINK_TTL_S: Final = 24 * 3600
PASSWORD_CHARS_MIN: Final = 10
PASSWORD_CHARS_MAX: Final = 256
LOGIN_CHARS_MAX: Final = 120


@dataclass(frozen=True, slots=True)
class Account:
    """Somebody with a lasting identity."""

    id: str
    login: str
    name: str
    role: Role


class Accounts(Protocol):
    """The accounts of this shop."""

    async def add(self, login: str, name: str, role: Role) -> Account:
        """The account with this login, created if there is none."""
        ...

    async def by_login(self, login: str) -> Account | None:
        """The account with this login, if it is not disabled."""
        ...

    async def any(self) -> bool:
        """Whether there is an account at all."""
        ...

    async def set_password(self, login: str, password: str) -> bool:
        """False if there is no such account. The caller has checked the length."""
        ...

    async def check_password(self, login: str, password: str) -> Account | None:
        """The account if the password is right; takes as long when there is none."""
        ...

    async def make_link(self, account_id: str) -> str:
        """A token that signs this account in once, within a day."""
        ...

    async def use_link(self, token: str) -> Account | None:
        """The account of a link that is unused and in time, which it then no longer is."""
        ...
