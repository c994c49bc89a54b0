"""The audience on Valkey: a hash of nodes and a HyperLogLog per room, read in one Lua step.

It must not know rooms or sockets. Stale nodes are dropped by whoever reports next, so no node has
to notice another one's death.
"""

from pathlib import Path
from typing import Any

from realtime.audience import STALE_S, Share, Whole
from realtime.broker import ROOM_TTL_S
from realtime.broker_redis import FAILURES, Client
from realtime.caller_redis import Script
from realtime.cluster_redis import Cluster
from realtime.errors import BrokerUnavailable
from realtime.link_redis import let_cancel_through


class RedisAudience:
    """An `Audience`; see there."""

    def __init__(self, client: Client, *, prefix: str = "live", stale_s: float = STALE_S) -> None:
        self._prefix = prefix
        self._stale_ms = int(stale_s * 1000)
        script = Path(__file__).with_name("audience.lua").read_text()
        self._report: Any = (
            Script(client, script)
            if isinstance(client, Cluster)
            else client.register_script(script)
        )

    async def report(self, room: str, node: str, share: Share) -> Whole:
        """Raises BrokerUnavailable."""
        base = f"{self._prefix}:{{{room}}}"
        try:
            answer = await self._report(
                [f"{base}:nodes", f"{base}:peak", f"{base}:unique"],
                [
                    node,
                    share.viewers,
                    self._stale_ms,
                    ROOM_TTL_S,
                    share.step,
                    share.tick_ms,
                    *share.newcomers,
                ],
            )
        except FAILURES as wrong:
            let_cancel_through()
            raise BrokerUnavailable("audience: " + type(wrong).__name__) from wrong
        let_cancel_through()
        return Whole(*answer)
