"""The hostile crowd as a process: makes its visits at a server and tells what came back.

Responsible for sockets and deadlines; what is sent is in `hostile`. Run by `fuzz` as
`python -m loadtests.attack`, so that its own work does not delay the viewer who measures: one JSON
object on standard input, one on standard output.
"""

import asyncio
import contextlib
import json
import random
import socket
import sys
from collections import Counter
from typing import Any, Final
from urllib.parse import urlsplit

from loadtests.client import BadServerFrame, decode, encode
from loadtests.hostile import BINARY, CLOSE, CLOSE_FRAME, PING, PONG, Hostile, Visit, frame

ANSWER_S: Final = 45.0
"""For the 101, for the answer to a join, and for the end after our close. Noise may read as the
start of a message that never ends, which a server may wait for: ours does for 30 s and 5 more."""
AT_ONCE: Final = 40
LINGERERS_MAX: Final = 60
"""Connections that stay to the end, in the middle of something."""
READ_BYTES: Final = 65_536
DEAF_BUFFER: Final = 4096
JOIN_ID: Final = 2_000_000_001
SHOWN_MAX: Final = 5


class Stuck(Exception):
    """The server neither answered nor ended the connection."""


class Attack:
    """Everything that was sent and what it led to."""

    def __init__(self, url: str, show: str, tokens: list[str], seed: int) -> None:
        where = urlsplit(url)
        self._address = (where.hostname or "127.0.0.1", where.port or 80)
        self._show, self._tokens = show, tokens
        self._random = random.Random(seed)
        self._visits = Hostile(where.netloc, self._random).visits()
        self._lingering: list[asyncio.StreamWriter] = []
        self.frames = self.connections = self.refused = 0
        self.kinds: Counter[str] = Counter()
        self.codes: Counter[str] = Counter()
        self.closes: Counter[str] = Counter()
        self.problems: list[str] = []

    async def run(self, frames: int) -> dict[str, Any]:
        """Send so many frames; the numbers."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(AT_ONCE):
                    group.create_task(self._work(frames))
        finally:
            for writer in self._lingering:
                writer.transport.abort()
        return {
            "frames": self.frames,
            "connections": self.connections,
            "kinds": dict(self.kinds),
            "codes": dict(self.codes),
            "closes": dict(self.closes),
            "problems": self.problems[:SHOWN_MAX],
            "problem_count": len(self.problems),
        }

    async def _work(self, frames: int) -> None:
        while self.frames < frames:
            visit = next(self._visits)
            self.frames += visit.frames
            self.connections += 1
            self.kinds[visit.kind] += visit.frames
            try:
                await self._make(visit)
            except (OSError, asyncio.IncompleteReadError):
                self.closes["cut"] += 1
            except (Stuck, BadServerFrame) as wrong:
                self.problems.append(f"{visit.kind}: {type(wrong).__name__} {wrong}")

    async def _make(self, visit: Visit) -> None:
        end = socket.socket()
        end.setblocking(False)
        if visit.leave == "deaf":
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, DEAF_BUFFER)
        try:
            async with asyncio.timeout(ANSWER_S):
                await asyncio.get_running_loop().sock_connect(end, self._address)
        except TimeoutError:
            end.close()
            raise Stuck("no connection") from None
        reader, writer = await asyncio.open_connection(sock=end, limit=READ_BYTES)
        stays = False
        try:
            stays = await self._talk(visit, reader, writer)
        finally:
            if stays and len(self._lingering) < LINGERERS_MAX:
                self._lingering.append(writer)
            else:
                writer.transport.abort()

    async def _talk(
        self, visit: Visit, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Whether the connection is to stay."""
        writer.write(visit.upgrade)
        opened = visit.handshake and await self._opened(reader)
        buffer = bytearray()
        if opened and visit.join:
            params = {"show": self._show, "token": self._random.choice(self._tokens)}
            writer.write(frame(BINARY, encode(JOIN_ID, "join", params)))
            await self._read(reader, buffer, until_join=True)
        for piece in visit.pieces:
            writer.write(piece)
            if visit.leave != "deaf":
                await self._sent(writer)
        match visit.leave:
            case "linger":
                return True
            case "eof" if writer.can_write_eof():
                writer.write_eof()
            case "close" if opened:
                writer.write(CLOSE_FRAME)
            case _:
                await asyncio.sleep(0)
                return False
        await self._read(reader, buffer)
        return False

    async def _sent(self, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(ANSWER_S):
                await writer.drain()
        except TimeoutError:
            raise Stuck("does not read") from None

    async def _opened(self, reader: asyncio.StreamReader) -> bool:
        try:
            async with asyncio.timeout(ANSWER_S):
                head = await reader.readuntil(b"\r\n\r\n")
        except TimeoutError:
            raise Stuck("no answer to the opening") from None
        if b" 101 " not in head[:20]:
            self.refused += 1
            raise ConnectionResetError
        return True

    async def _read(
        self, reader: asyncio.StreamReader, buffer: bytearray, *, until_join: bool = False
    ) -> None:
        """Read and judge to the end of the connection, or to the answer to our join."""
        try:
            async with asyncio.timeout(ANSWER_S):
                while data := await reader.read(READ_BYTES):
                    buffer += data
                    if self._judge(buffer) and until_join:
                        return
        except TimeoutError:
            raise Stuck("is not ended") from None

    def _judge(self, buffer: bytearray) -> bool:
        """Take whole frames; whether our join was answered. Raises `BadServerFrame`."""
        joined = False
        while len(buffer) >= 2:
            opcode, size, start = buffer[0], buffer[1], 2
            if size == 126:
                size, start = int.from_bytes(buffer[2:4], "big"), 4
            elif size == 127:
                size, start = int.from_bytes(buffer[2:10], "big"), 10
            if len(buffer) < start + size:
                break
            payload = bytes(buffer[start : start + size])
            del buffer[: start + size]
            if opcode == 0x80 | BINARY:
                joined |= self._hear(payload)
            elif opcode == 0x80 | CLOSE:
                self.closes[str(int.from_bytes(payload[:2], "big"))] += 1
                if buffer:
                    raise BadServerFrame("bytes behind a close frame")
            elif opcode not in (0x80 | PING, 0x80 | PONG):
                raise BadServerFrame(f"opcode {opcode:#x}")
        return joined

    def _hear(self, payload: bytes) -> bool:
        joined = False
        for envelope in decode(payload):
            if envelope[0] == 1:
                self.codes[envelope[2]["code"]] += 1
            joined |= envelope[0] in (0, 1) and envelope[1] == JOIN_ID
        return joined


def main() -> None:
    """The process."""
    order = json.load(sys.stdin)
    attack = Attack(order["url"], order["show"], order["tokens"], order["seed"])
    with contextlib.suppress(KeyboardInterrupt):
        print(json.dumps(asyncio.run(attack.run(order["frames"]))), flush=True)


if __name__ == "__main__":
    main()
