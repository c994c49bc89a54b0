"""One real server for the tests of this folder, as `python -m loadtests` starts it."""

import asyncio
from collections.abc import Iterator

import pytest

from loadtests.api import Api
from loadtests.server import OwnServer


@pytest.fixture(scope="session")
def own_server() -> Iterator[OwnServer]:
    with OwnServer() as server:
        yield server


@pytest.fixture(scope="session")
def host_token(own_server: OwnServer) -> str:
    """A host of it. Signed in once: a link costs a start of the program."""

    async def sign_in() -> str:
        async with Api(own_server.url) as api:
            return await api.sign_in(own_server.host_link("tests"))

    return asyncio.run(sign_in())
