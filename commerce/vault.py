"""The vault: keys of persons, and what is written under them.

Responsible for sealing and opening text under a key that belongs to one person, and for wrapping
those keys under the shop's master key. It must not know tables, nor what the text says.

Each person has a key of their own (AES-256-GCM, from `cryptography`), stored wrapped. Destroying it
makes everything sealed under it unreadable in this database and in copies made afterwards. A copy
made before holds the wrapped key too: whoever has it and the master can open it, so it is the list
of erasures (`people`) that makes a restored copy forget, and old copies have to be thrown away. The
place a text was sealed for (table, person, row) is authenticated with it, so a sealed text that was
copied to another row does not open.

Several masters may be given: the first one wraps, all of them unwrap, so that a master can be
changed while the shop is open.
"""

import base64
import hashlib
import os
from collections.abc import Callable, Sequence
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
_VERSION: Final = "v1"
_INFO: Final = b"vitrine person keys"


class Sealed(Exception):
    """It does not open: another master, another place, or somebody has changed it."""


class Vault:
    """`masters` are secrets of 32 characters or more; `random_bytes` gives that many."""

    def __init__(
        self, masters: Sequence[str], *, random_bytes: Callable[[int], bytes] = os.urandom
    ) -> None:
        if not masters:
            raise ValueError("a vault needs a master")
        derived = [_derive(master) for master in masters]
        self._first = _name(derived[0])
        self._masters = {_name(key): key for key in derived}
        self._random = random_bytes

    def new_key(self, person: str) -> tuple[bytes, str]:
        """(key, the same wrapped for storing)."""
        key = self._random(KEY_BYTES)
        body = self._seal(self._masters[self._first], key, f"key|{person}")
        return key, f"{_VERSION}.{self._first}.{body}"

    def open_key(self, person: str, wrapped: str) -> bytes:
        """A key that was stored. Raises `Sealed`."""
        version, _, rest = wrapped.partition(".")
        name, _, body = rest.partition(".")
        master = self._masters.get(name)
        if version != _VERSION or master is None:
            raise Sealed
        return _open(master, body, f"key|{person}")

    def is_current(self, wrapped: str) -> bool:
        """Whether a stored key is wrapped under the first master."""
        return wrapped.startswith(f"{_VERSION}.{self._first}.")

    def rewrap(self, person: str, wrapped: str) -> str:
        """The same key under the first master. Raises `Sealed`."""
        key = self.open_key(person, wrapped)
        body = self._seal(self._masters[self._first], key, f"key|{person}")
        return f"{_VERSION}.{self._first}.{body}"

    def seal(self, key: bytes, text: str, place: str) -> str:
        """Text, unreadable without the key, and only to be opened at `place`."""
        return self._seal(key, text.encode(), place)

    def unseal(self, key: bytes, sealed: str, place: str) -> str:
        """What was sealed. Raises `Sealed`."""
        return _open(key, sealed, place).decode()

    def _seal(self, key: bytes, content: bytes, place: str) -> str:
        nonce = self._random(NONCE_BYTES)
        return base64.b64encode(
            nonce + AESGCM(key).encrypt(nonce, content, place.encode())
        ).decode()


def _derive(master: str) -> bytes:
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=_INFO).derive(master.encode())


def _name(key: bytes) -> str:
    """Says which master it was, and nothing about it."""
    return hashlib.sha256(b"name" + key).hexdigest()[:8]


def _open(key: bytes, sealed: str, place: str) -> bytes:
    try:
        content = base64.b64decode(sealed, validate=True)
        return AESGCM(key).decrypt(content[:NONCE_BYTES], content[NONCE_BYTES:], place.encode())
    except (ValueError, InvalidTag):
        raise Sealed from None
