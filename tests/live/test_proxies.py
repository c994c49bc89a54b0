"""Whose address it is behind proxies: what is believed, and from whom."""

from typing import Any

import pytest

from live.proxies import RealAddress, networks, real_address

TRUSTED = networks(["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"])


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("10.1.2.3", "203.0.113.9", "203.0.113.9"),
        ("::ffff:10.1.2.3", "203.0.113.9", "203.0.113.9"),
        ("2001:db8::1", "2001:dead::5", "2001:dead::5"),
        ("10.1.2.3", "203.0.113.9, 192.0.2.7, 10.9.9.9", "203.0.113.9"),
        ("10.1.2.3", "127.0.0.1, 203.0.113.9", "203.0.113.9"),  # the left was the viewer's own
        ("10.1.2.3", "203.0.113.9:4711", "203.0.113.9"),
        ("10.1.2.3", "[2001:dead::5]:4711", "2001:dead::5"),
        ("10.1.2.3", "203.0.113.9, unknown", "10.1.2.3"),
        ("10.1.2.3", "", "10.1.2.3"),
        ("10.1.2.3", "10.0.0.4", "10.0.0.4"),
        ("203.0.113.1", "127.0.0.1", "203.0.113.1"),  # not one of our proxies
        ("192.0.2.8", "203.0.113.9", "192.0.2.8"),
    ],
)
def test_the_list_is_read_from_the_right_and_only_from_trusted_peers(
    peer: str, forwarded: str, address: str
) -> None:
    assert real_address(peer, forwarded, TRUSTED) == address


@pytest.mark.parametrize("bad", ["*", "proxy.example", "10.0.0.0/33", ""])
def test_what_is_no_address_is_nobody_to_trust(bad: str) -> None:
    with pytest.raises(ValueError, match="does not appear to be"):
        networks([bad])


async def seen(peer: str, *headers: tuple[bytes, bytes], kind: str = "websocket") -> dict[str, Any]:
    found: dict[str, Any] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        found.update(scope)

    scope = {"type": kind, "client": (peer, 1), "scheme": "ws", "headers": list(headers)}
    await RealAddress(app, ["10.0.0.0/8"])(scope, None, None)  # type: ignore[arg-type]
    return found


async def test_several_header_lines_are_one_list_and_the_scheme_comes_along() -> None:
    scope = await seen(
        "10.0.0.1",
        (b"x-forwarded-for", b"198.51.100.1"),
        (b"x-forwarded-for", b"203.0.113.9, 10.0.0.2"),
        (b"x-forwarded-proto", b"https"),
    )
    assert scope["client"] == ("203.0.113.9", 0)
    assert scope["scheme"] == "wss"


async def test_a_stranger_s_headers_change_nothing_and_are_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scope = await seen(
        "203.0.113.1", (b"x-forwarded-for", b"127.0.0.1"), (b"x-forwarded-proto", b"https")
    )
    assert (scope["client"], scope["scheme"]) == (("203.0.113.1", 1), "ws")
    assert "LIVE_TRUSTED_PROXIES" in caplog.text
    assert "127.0.0.1" not in caplog.text
