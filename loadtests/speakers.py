"""Those who make the events of a bench: connections that send commands and time their replies.

Responsible for a known number of events of each kind at a steady rate, and for the instant of each
in its value. Not members of the measured crowd. Raw streams: a client library on this side would
take CPU from the server on a machine of two cores.
"""

import asyncio
import contextlib
import itertools
import time
from collections import Counter
from types import TracebackType
from typing import Any, Final, Self

from loadtests.client import decode, encode
from loadtests.frames import PONG, REQUEST, masked
from loadtests.picture import BINARY, PING, split

CONNECTIONS: Final = 16
"""Commands of one connection are answered one after another: one round trip to Valkey each."""
GRID_S: Final = 0.005
PIN_TITLE: Final = "A linen shirt in the colour of the day, sizes XS to XL, washed once"
REPLY: Final = 0
READ_BYTES: Final = 65_536


def now_us() -> int:
    """Monotonic and the same in all processes of this machine."""
    return time.monotonic_ns() // 1000


class Speaker:
    """One connection that speaks."""

    def __init__(self, port: int, path: str, params: dict[str, Any]) -> None:
        self._port = port
        self._path = path
        self._params = params
        self._sent: dict[int, int] = {}
        self._ids = itertools.count(1)
        self.replies_us: list[int] = []
        self.failures: Counter[str] = Counter()

    async def open(self) -> None:
        """Connect and ask to join; raises OSError."""
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        host = f"127.0.0.1:{self._port}"
        self._writer.write(REQUEST.format(path=self._path, host=host).encode())
        await self._reader.readuntil(b"\r\n\r\n")
        self.send("join", {**self._params, "speaker": True})
        self._reading = asyncio.create_task(self._read())

    def send(self, name: str, params: dict[str, Any]) -> None:
        """One command; its reply is timed."""
        number = next(self._ids)
        self._sent[number] = now_us()
        self._writer.write(masked(encode(number, name, params)))

    @property
    def unanswered(self) -> int:
        """Commands without a reply."""
        return len(self._sent)

    async def _read(self) -> None:
        rest = b""
        while chunk := await self._reader.read(READ_BYTES):
            frames, taken = split(rest + chunk)
            rest = (rest + chunk)[taken:]
            for opcode, payload in frames:
                if opcode == BINARY and payload[1] <= 1:
                    self._answered(payload)
                elif opcode == PING:
                    self._writer.write(PONG)

    def _answered(self, payload: bytes) -> None:
        kind, number, body = decode(payload)[0][:3]
        sent = self._sent.pop(number, None)
        if kind != REPLY:
            self.failures[body["code"]] += 1
        elif sent is not None:
            self.replies_us.append(now_us() - sent)

    async def close(self) -> None:
        """Be gone."""
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        self._writer.transport.abort()


class Speakers:
    """Several, taken in turn."""

    def __init__(self, port: int, path: str = "/live", *, connections: int = CONNECTIONS) -> None:
        self._all = [
            Speaker(port, path, {"token": f"speaker{number}"}) for number in range(connections)
        ]
        self._turn = itertools.cycle(self._all)
        self._number = itertools.count(1)
        self.sent: Counter[str] = Counter()

    async def __aenter__(self) -> Self:
        for speaker in self._all:
            await speaker.open()
        await self.settle()
        self.forget()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for speaker in self._all:
            await speaker.close()

    def forget(self) -> None:
        """Begin to count anew."""
        self.sent.clear()
        for speaker in self._all:
            speaker.replies_us.clear()

    @property
    def replies_us(self) -> list[int]:
        """How long replies took."""
        return [us for speaker in self._all for us in speaker.replies_us]

    @property
    def failures(self) -> Counter[str]:
        """Refusals by code."""
        return sum((speaker.failures for speaker in self._all), Counter())

    async def settle(self, within_s: float = 10.0) -> bool:
        """Wait until all is answered; whether it was."""
        deadline = time.monotonic() + within_s
        while any(speaker.unanswered for speaker in self._all):
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(GRID_S)
        return True

    def say(self, kind: str, text: str = "", skus: int = 10) -> None:
        """One event."""
        number, at = next(self._number), now_us()
        self.sent[kind] += 1
        speaker = next(self._turn)
        if kind == "comment":
            by = {"id": f"guest{number % 997}", "name": "Somebody", "role": "guest"}
            value = {"at": at // 1000, "by": by, "text": text or f"How nice {number}", "t": at}
            speaker.send("comment", {"value": value, "rid": f"{at}:{number}"})
        elif kind == "like":
            speaker.send("like", {"n": 1})
        elif kind == "stock":
            sku = f"SKU-{number % skus}"
            speaker.send("stock", {"sku": sku, "value": number % 1000, "t": at})
        else:
            pin = {"product": f"p{number}", "title": PIN_TITLE, "pinned_at": at // 1000, "t": at}
            speaker.send("pin", {"value": pin})

    async def talk(self, seconds: float, rates: dict[str, float], *, text: str = "") -> None:
        """Events of each kind at its rate per second, evenly."""
        started = time.monotonic()
        said = dict.fromkeys(rates, 0)
        while (passed := time.monotonic() - started) < seconds:
            for kind, rate in rates.items():
                while said[kind] < int(passed * rate):
                    said[kind] += 1
                    self.say(kind, text)
            await asyncio.sleep(GRID_S)
        for kind, rate in rates.items():
            for _ in range(int(seconds * rate) - said[kind]):
                self.say(kind, text)


@contextlib.asynccontextmanager
async def talking(speakers: Speakers, rates: dict[str, float], text: str = "") -> Any:
    """Events for as long as the block lasts."""
    task = asyncio.create_task(speakers.talk(3600, rates, text=text))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
