"""The pages and what they may load.

Responsible for serving `web_client/` as it lies, under a content security policy without inline
code, and for the demo's endless video: a sliding live playlist over a short loop of segments, so
that a newcomer sees a living show without an encoder. It must not know shows; the page asks the
API.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COUNTED_FROM_MS: Final = 1_793_491_200_000
"""The demo's segments are numbered from 1 November 2026. From 1970 the discontinuity sequence would
be 60 million, and hls.js walks up to it at every reload: the page stands still for a second."""
WINDOW: Final = 6
"""Segments in the playlist: players want three target durations, six forgive a stall."""
PAGES: Final = {"/": "index.html", "/show/{show}": "show.html", "/host": "host.html"}
POLICY: Final = "; ".join(
    (
        "default-src 'self'",
        "img-src 'self' data: https:",
        "media-src 'self' blob: https:",
        "connect-src 'self' https: ws: wss:",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
SECURITY_HEADERS: Final[Mapping[bytes, bytes]] = {
    b"content-security-policy": POLICY.encode(),
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"same-origin",
    b"cross-origin-opener-policy": b"same-origin",
    b"permissions-policy": b"camera=(), microphone=(), geolocation=(), payment=()",
}


class SecureHeaders:
    """Puts the policy on every HTTP answer. Plain ASGI: a WebSocket passes untouched."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name.lower() for name, _ in message.get("headers", [])}
                message["headers"] = [
                    *message.get("headers", []),
                    *((n, v) for n, v in SECURITY_HEADERS.items() if n not in present),
                ]
            await send(message)

        await self._app(scope, receive, send_with_headers)


@dataclass(frozen=True, slots=True)
class Loop:
    """The demo's segments: names and exact durations in seconds."""

    init: str | None
    segments: tuple[tuple[str, float], ...]

    @classmethod
    def load(cls, folder: Path) -> "Loop":
        """From `loop.json`: {init?, segments: [{name, duration}…]}."""
        found: dict[str, Any] = json.loads((folder / "loop.json").read_text())
        segments = tuple((str(one["name"]), float(one["duration"])) for one in found["segments"])
        return cls(found.get("init"), segments)

    def playlist(self, now_ms: int) -> str:
        """The window of the endless loop that ends now. Pure: the same instant, the same text."""
        total = sum(seconds for _, seconds in self.segments)
        count = len(self.segments)
        turn, inside = divmod(max(0, now_ms - COUNTED_FROM_MS) / 1000, total)
        index = 0
        start = 0.0
        for index, (_, seconds) in enumerate(self.segments):  # noqa: B007
            if start + seconds > inside:
                break
            start += seconds
        newest = int(turn) * count + index  # being played into; the one before is complete
        first = max(newest - WINDOW, 0)
        target = max(1, -(-max(int(seconds * 1000) for _, seconds in self.segments) // 1000))
        lines = [
            "#EXTM3U",
            "#EXT-X-VERSION:7",
            f"#EXT-X-TARGETDURATION:{target}",
            f"#EXT-X-MEDIA-SEQUENCE:{first}",
            f"#EXT-X-DISCONTINUITY-SEQUENCE:{first // count}",
            "#EXT-X-INDEPENDENT-SEGMENTS",
        ]
        if self.init:
            lines.append(f'#EXT-X-MAP:URI="{self.init}"')
        for number in range(first, newest):
            name, seconds = self.segments[number % count]
            if number % count == 0 and number > first:
                lines.append("#EXT-X-DISCONTINUITY")
            if number == first or number % count == 0:
                lines.append(f"#EXT-X-PROGRAM-DATE-TIME:{_iso(self._starts(number, total))}")
            lines += [f"#EXTINF:{seconds:.3f},", name]
        return "\n".join(lines) + "\n"

    def _starts(self, number: int, total: float) -> float:
        turn, index = divmod(number, len(self.segments))
        seconds = turn * total + sum(seconds for _, seconds in self.segments[:index])
        return COUNTED_FROM_MS / 1000 + seconds


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def routes(folder: Path, clock: Callable[[], int]) -> list[BaseRoute]:
    """Pages, static files and the demo video. `clock` in milliseconds."""

    def page(name: str) -> Callable[[Request], Response]:
        def serve(_: Request) -> Response:
            return FileResponse(folder / name, headers={"cache-control": "no-cache"})

        return serve

    found: list[BaseRoute] = [Route(path, page(name)) for path, name in PAGES.items()]
    demo = folder / "media" / "demo"
    if (demo / "loop.json").exists():
        loop = Loop.load(demo)

        def playlist(_: Request) -> Response:
            return Response(
                loop.playlist(clock()),
                media_type="application/vnd.apple.mpegurl",
                headers={"cache-control": "no-cache"},
            )

        found.append(Route("/media/demo/live.m3u8", playlist))
        found.append(Mount("/media/demo", StaticFiles(directory=demo)))
    found.append(Route("/favicon.ico", lambda _: RedirectResponse("/static/favicon.svg")))
    found.append(Mount("/static", StaticFiles(directory=folder)))
    return found
