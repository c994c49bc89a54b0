"""Numbers for Prometheus, read from the rooms' own counters when somebody asks.

Responsible for names and help texts. It must not count anything itself: the hub and the checkout
keep plain integers (an increment of a Prometheus counter costs 330 ns, the fan-out has none to
spare), and this module reads them once per scrape.
"""

from collections.abc import Callable, Iterable
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from typing_extensions import override

from realtime.hub import Hub

HELP: Final = {
    "frames_encoded": "Shared frames made (one per tick of a room).",
    "frames_written": "Shared frames taken by sockets.",
    "bytes_written": "Bytes of shared frames taken by sockets.",
    "entries": "Control entries, states and comments put into shared frames.",
    "skipped": "Times a congested viewer was left out of a shared frame and began to lag.",
    "drained": "Times a lagging viewer was caught up.",
    "slow_ended": "Viewers ended because they did not read for too long.",
    "joins": "Joins of a room.",
    "recovered": "Joins that got exactly what they missed instead of a snapshot.",
    "sampled": "Comments left out of shared frames because of the egress budget.",
    "snapshots_encoded": "Snapshots encoded (one per version of a room).",
    "gaps": "Batches that did not follow on what the room had.",
    "heals": "Loads of a room after a gap, an outage or a new epoch.",
}


class LiveCollector(Collector):
    """Reads the hub and what else it is given: `numbers` gives further gauges by name."""

    def __init__(self, hub: Hub, numbers: Callable[[], dict[str, float]], node: str) -> None:
        self._node = node
        self._hub = hub
        self._numbers = numbers

    @override
    def collect(self) -> Iterable[Metric]:
        """One scrape."""
        counters = self._hub.counters
        for name, text in HELP.items():
            family = CounterMetricFamily(f"vitrine_{name}", text)
            family.add_metric([], getattr(counters, name))
            yield family
        refused = CounterMetricFamily("vitrine_refused", "Refused commands.", labels=["code"])
        for code, n in counters.failures.items():
            refused.add_metric([code], n)
        yield refused
        closed = CounterMetricFamily(
            "vitrine_closed", "Connections ended by this node.", labels=["code"]
        )
        for close_code, n in counters.closed.items():
            closed.add_metric([str(int(close_code))], n)
        yield closed
        yield GaugeMetricFamily(
            "vitrine_connections", "Connections of this node.", value=self._hub.connections
        )
        paces = [room.pace for room in self._hub.rooms]
        yield GaugeMetricFamily(
            "vitrine_pace_step",
            "Highest step of the ladder that a room of this node is on; 3: comments are sampled.",
            value=max((pace.step for pace in paces), default=0),
        )
        yield GaugeMetricFamily(
            "vitrine_tick_seconds",
            "Longest tick of a room of this node.",
            value=max((pace.tick_ms for pace in paces), default=0) / 1000,
        )
        yield GaugeMetricFamily(
            "vitrine_broker_ok", "Whether the broker answers.", value=float(self._hub.broker_ok)
        )
        info = GaugeMetricFamily("vitrine_node_info", "Whose numbers these are.", labels=["node"])
        info.add_metric([self._node], 1)
        yield info
        for name, value in self._numbers().items():
            yield GaugeMetricFamily(f"vitrine_{name}", name.replace("_", " "), value=value)


def exporter(hub: Hub, numbers: Callable[[], dict[str, float]], node: str) -> Callable[[], bytes]:
    """A function that gives the text of `/metrics` of this node."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(LiveCollector(hub, numbers, node))
    ProcessCollector(registry=registry)
    return lambda: generate_latest(registry)
