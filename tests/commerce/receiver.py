"""One of the shop's other systems: a small HTTP server that keeps what it is sent."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

HEAD_MAX = 16_384


@dataclass
class Receiver:
    """`answer` decides, from the number of requests so far, status and further headers."""

    url: str = ""
    requests: list[tuple[dict[str, str], str]] = field(default_factory=list)
    answer: Callable[[int], tuple[int, str]] = lambda _n: (200, "")
    hang: bool = False

    @property
    def bodies(self) -> list[str]:
        return [body for _, body in self.requests]

    async def hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lines = head.decode().split("\r\n")[1:-2]
                headers = {
                    name.lower(): value.strip()
                    for name, _, value in (line.partition(":") for line in lines)
                }
                body = await reader.readexactly(int(headers["content-length"]))
                self.requests.append((headers, body.decode()))
                if self.hang:
                    await reader.read()  # until the sender gives up
                    return
                status, more = self.answer(len(self.requests))
                writer.write(f"HTTP/1.1 {status} X\r\n{more}content-length: 0\r\n\r\n".encode())
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """A receiver on a free port of this machine."""
    receiver = Receiver()
    server = await asyncio.start_server(receiver.hear, "127.0.0.1", 0, limit=HEAD_MAX)
    port = server.sockets[0].getsockname()[1]
    receiver.url = f"http://127.0.0.1:{port}/hook"
    try:
        yield receiver
    finally:
        server.close()
        await server.wait_closed()
