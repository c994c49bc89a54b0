"""The server that a drill runs against: a running one, or one of our own.

Responsible for the options that choose it and for signing in as host on either. Drills ask for a
target and do not know which kind they got.
"""

import argparse
import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from loadtests.api import Api
from loadtests.server import OwnServer


class NoHost(Exception):
    """A running server was named without a way to sign in as its host."""


@dataclass(frozen=True)
class Target:
    """Where the server is and how to become its host."""

    url: str
    token: str = ""
    link: str = ""
    own: OwnServer | None = None
    """Present when the server is ours: then its process may be measured."""

    async def host_token(self, api: Api) -> str:
        """A host's token. Raises `NoHost`, `Refused`."""
        if self.token:
            return self.token
        if self.own is not None:
            return await api.sign_in(await asyncio.to_thread(self.own.host_link))
        if not self.link:
            raise NoHost("give --token or --link: this drill needs a host of the server at --url")
        return await api.sign_in(self.link)


def target_options(parser: argparse.ArgumentParser) -> None:
    """--url, --token, --link"""
    parser.add_argument("--url", default="", help="a running server; without it: one of our own")
    parser.add_argument("--token", default="", help="token of a host of that server")
    parser.add_argument("--link", default="", help="one-time link of a host (live user link NAME)")


@contextlib.contextmanager
def open_target(options: argparse.Namespace) -> Iterator[Target]:
    """The server to run against, as the options say. Raises `ServerFailed`."""
    if options.url:
        yield Target(options.url.rstrip("/"), options.token, options.link)
        return
    with OwnServer() as own:
        yield Target(own.url, own=own)
