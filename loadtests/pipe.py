"""The helper's end of the line to its bench, for a process that runs on an epoll of its own.

Responsible for lines of JSON over a socket pair. It must not know what is asked. Whoever reads
`None` leaves: the bench is gone, and nothing may outlive it.
"""

import json
import socket
from typing import Any


class Pipe:
    """The bench's end of the control line, inside the epoll of the crowd."""

    def __init__(self, fd: int) -> None:
        self._sock = socket.socket(fileno=fd)
        self._data = bytearray()
        self.fd = fd

    def asks(self) -> list[dict[str, Any]] | None:
        """Whole questions that have come; None when the bench is gone."""
        chunk = self._sock.recv(1 << 20)
        if not chunk:
            return None
        self._data += chunk
        if b"\n" not in chunk:
            return []
        *lines, rest = bytes(self._data).split(b"\n")
        self._data = bytearray(rest)
        return [json.loads(line) for line in lines]

    def say(self, answer: dict[str, Any]) -> None:
        """One answer."""
        self._sock.sendall(json.dumps(answer).encode() + b"\n")
