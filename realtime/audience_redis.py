"""The audience on Valkey: a hash of counts per room, summed in one Lua step.

It must not know rooms or sockets. Stale nodes are dropped by whoever reports next, so no node has
to notice another one's death.
"""

from pathlib import Path
from typing import Any

from realtime.audience import STALE_S, Viewers
from realtime.broker import ROOM_TTL_S
from realtime.broker_redis import FAILURES, Client
from realtime.errors import BrokerUnavailable
from realtime.feed_redis import let_cancel_through


class RedisAudience:
    """An `Audience`; see there."""

    def __init__(self, client: Client, *, prefix: str = "live", stale_s: float = STALE_S) -> None:
        self._prefix = prefix
        self._stale_ms = int(stale_s * 1000)
        script = Path(__file__).with_name("audience.lua").read_text()
        self._report: Any = client.register_script(script)

    async def report(self, room: str, node: str, viewers: int) -> Viewers:
        """Raises BrokerUnavailable."""
        base = f"{self._prefix}:{{{room}}}"
        try:
            now, peak = await self._report(
                keys=[f"{base}:nodes", f"{base}:peak"],
                args=[node, viewers, self._stale_ms, ROOM_TTL_S],
            )
        except FAILURES as wrong:
            let_cancel_through()
            raise BrokerUnavailable("audience: " + type(wrong).__name__) from wrong
        let_cancel_through()
        return Viewers(now, peak)
