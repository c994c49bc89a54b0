"""Whose request it is when proxies stand in front: the real address of a viewer.

Responsible for `X-Forwarded-For` and `X-Forwarded-Proto`, from peers that the operator trusts and
from nobody else. It must not know what is done with an address (pace, idempotency scopes).

Each proxy appends who came to it, so the list is read from the right: the first address that is not
one of our proxies is the viewer; whatever stands left of it was written by the viewer. Not
uvicorn's own `proxy_headers`: it takes the *left* end with `*`, compares an IPv4 address that came
in on an IPv6 listener (`::ffff:10.0.0.1`) with IPv6 networks only, and hands anything that is no
address on as one.
"""

import ipaddress
import logging
from collections.abc import Iterable, Sequence
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

log = logging.getLogger(__name__)

HOPS_MAX: Final = 16
"""Entries of the list that are looked at, from the right."""
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Addresses and CIDR ranges. Raises ValueError for anything else, names and `*` included."""
    return tuple(ipaddress.ip_network(text, strict=False) for text in texts)


def parse(text: str) -> Address | None:
    """An address, perhaps with a port or in brackets; None if it is none."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found


def real_address(peer: str, forwarded: str, trusted: Sequence[Network]) -> str:
    """The viewer's address: `peer`, or what trusted proxies say in `forwarded` (joined lists).

    An entry that is no address ends the search: the last proxy before it stands for the viewer.
    """
    nearest = parse(peer)
    if nearest is None or not _among(nearest, trusted):
        return peer
    for entry in reversed(forwarded.split(",")[-HOPS_MAX:]):
        hop = parse(entry)
        if hop is None:
            break
        nearest = hop
        if not _among(hop, trusted):
            break
    return str(nearest)


def _among(address: Address, trusted: Sequence[Network]) -> bool:
    return any(address in network for network in trusted)


class RealAddress:
    """An application whose `client` is the viewer and whose `scheme` is what the viewer used."""

    def __init__(self, app: ASGIApp, trusted: Iterable[str]) -> None:
        self._app = app
        self._trusted = networks(trusted)
        self._warned = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the module."""
        if scope["type"] in ("http", "websocket") and scope.get("client"):
            self._look(scope)
        await self._app(scope, receive, send)

    def address(self, peer: str, forwarded: str | None) -> str:
        """Whose connection from `peer` is; `forwarded` is what X-Forwarded-For says, if it does."""
        if forwarded is None or not self._believed(peer):
            return peer
        return real_address(peer, forwarded, self._trusted)

    def _believed(self, peer: str) -> bool:
        address = parse(peer)
        if address is not None and _among(address, self._trusted):
            return True
        # Every viewer would have the proxy's address, and share the proxy's pace.
        if not self._warned:
            self._warned = True
            log.warning("X-Forwarded-For is not believed: see LIVE_TRUSTED_PROXIES")
        return False

    def _look(self, scope: Scope) -> None:
        lists = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
        peer = scope["client"][0]
        if not lists or not self._believed(peer):
            return
        scope["client"] = (
            real_address(peer, b",".join(lists).decode("latin-1"), self._trusted),
            0,
        )
        for name, value in scope["headers"]:
            if name == b"x-forwarded-proto" and value in (b"http", b"https", b"ws", b"wss"):
                secure = value in (b"https", b"wss")
                plain = "ws" if scope["type"] == "websocket" else "http"
                scope["scheme"] = plain + "s" * secure
