"""Accounts of people who run shows: passwords, one-time links.

Responsible for who exists and how they prove it. It must not know tokens or HTTP. Passwords are
argon2id in a thread (260 ms of CPU would stop the room for everybody); of a one-time link only the
hash is stored, so a copy of the database signs nobody in.
"""

import asyncio
import hashlib
import secrets
from collections.abc import Callable
from typing import Any, Final

import argon2
from sqlalchemy import insert, select, update

from commerce.database_sql import Database, insert_new
from live.accounts import LINK_TTL_S, Account
from live.identity import Role
from live.schema_sql import account, sign_in_link

LINK_BYTES: Final = 24


class SqlAccounts:
    """The accounts in the database. `clock` in milliseconds; `new_id` makes ids."""

    def __init__(
        self, database: Database, clock: Callable[[], int], new_id: Callable[[], str]
    ) -> None:
        self._database = database
        self._clock = clock
        self._new_id = new_id
        self._hasher = argon2.PasswordHasher()
        # Verified when there is no such login, so that the answer takes as long either way.
        self._nobody: str | None = None

    async def add(self, login: str, name: str, role: Role) -> Account:
        """The account with this login, created if there is none."""
        found = await self.by_login(login)
        if found is not None:
            return found
        row = {
            "id": f"a_{self._new_id()}",
            "login": login,
            "name": name,
            "role": role.value,
            "created_at": self._clock(),
        }
        async with self._database.begin() as connection:
            # Two nodes that start at once both make the first host.
            await insert_new(connection, account, row, key=("login",))
            made = (await connection.execute(select(account).where(account.c.login == login))).one()
        return _account(made)

    async def by_login(self, login: str) -> Account | None:
        """The account with this login, if it is not disabled."""
        async with self._database.read() as connection:
            row = (
                await connection.execute(
                    select(account).where(account.c.login == login, account.c.disabled_at.is_(None))
                )
            ).first()
        return None if row is None else _account(row)

    async def any(self) -> bool:
        """Whether there is an account at all."""
        async with self._database.read() as connection:
            return (await connection.execute(select(account.c.id).limit(1))).first() is not None

    async def set_password(self, login: str, password: str) -> bool:
        """False if there is no such account. The caller has checked the length."""
        hashed = await asyncio.to_thread(self._hasher.hash, password)
        async with self._database.begin() as connection:
            done = await connection.execute(
                update(account).where(account.c.login == login).values(password_hash=hashed)
            )
        return bool(done.rowcount)

    async def check_password(self, login: str, password: str) -> Account | None:
        """The account if the password is right."""
        async with self._database.read() as connection:
            row = (
                await connection.execute(
                    select(account).where(account.c.login == login, account.c.disabled_at.is_(None))
                )
            ).first()
        if self._nobody is None:
            self._nobody = await asyncio.to_thread(self._hasher.hash, secrets.token_hex(16))
        hashed = row.password_hash if row is not None and row.password_hash else self._nobody
        right = await asyncio.to_thread(self._verify, hashed, password)
        return _account(row) if right and row is not None and row.password_hash else None

    def _verify(self, hashed: str, password: str) -> bool:
        try:
            return self._hasher.verify(hashed, password)
        except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
            return False

    async def make_link(self, account_id: str) -> str:
        """A token that signs this account in once, within a day."""
        token = secrets.token_urlsafe(LINK_BYTES)
        async with self._database.begin() as connection:
            await connection.execute(
                insert(sign_in_link).values(
                    token_sha=_sha(token),
                    account=account_id,
                    expires_at=self._clock() + LINK_TTL_S * 1000,
                )
            )
        return token

    async def use_link(self, token: str) -> Account | None:
        """The account of a link that is unused and in time; using it is one compare-and-set."""
        now = self._clock()
        async with self._database.begin() as connection:
            used = await connection.execute(
                update(sign_in_link)
                .where(
                    sign_in_link.c.token_sha == _sha(token),
                    sign_in_link.c.used_at.is_(None),
                    sign_in_link.c.expires_at > now,
                )
                .values(used_at=now)
            )
            if not used.rowcount:
                return None
            row = (
                await connection.execute(
                    select(account)
                    .join(sign_in_link, sign_in_link.c.account == account.c.id)
                    .where(sign_in_link.c.token_sha == _sha(token), account.c.disabled_at.is_(None))
                )
            ).first()
        return None if row is None else _account(row)


def _account(row: Any) -> Account:
    return Account(row.id, row.login, row.name, Role(row.role))


def _sha(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
