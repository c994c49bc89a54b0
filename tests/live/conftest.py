"""A whole node in this process: real engines, a real port, everything closed at the end."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from commerce.database_sql import Database
from live.app import App, make_asgi, open_app
from live.identity import ACCOUNT_TTL_S, Identity, Role
from live.migrate_sql import migrate
from live.node import Ground
from live.server_uvicorn import listen, make_server, serve
from live.settings import Settings
from loadtests.api import Api
from loadtests.shopper import Host, Shopper

SECRET = "0123456789abcdef" * 4


@dataclass
class Node:
    """A running node and short ways to its people."""

    app: App
    url: str

    def token(self, role: Role = Role.GUEST, *, id_: str = "g_ada", name: str = "Ada") -> str:
        return self.app.tokens.issue(Identity(id_, name, role), ACCOUNT_TTL_S)

    def viewer(self, show: str, id_: str = "g_ada", name: str = "Ada") -> Shopper:
        return Shopper(self.url, show, self.token(id_=id_, name=name))

    def host(self, show: str) -> Host:
        return Host(self.url, show, self.token(Role.HOST, id_="a_host", name="Host"))

    def api(self, token: str = "") -> Api:
        return Api(self.url, token)

    @property
    def host_token(self) -> str:
        return self.token(Role.HOST, id_="a_host", name="Host")


async def _nothing_to_wait_for() -> None:
    pass


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty shop in a file, to be copied: six migrations take longer than most tests."""
    path = tmp_path_factory.mktemp("migrated") / "template.db"

    async def make() -> None:
        database = await Database.open(f"sqlite:///{path}")
        await migrate(database)
        await database.close()

    asyncio.run(make())
    return path


@pytest.fixture
async def node(valkey_url: str, sqlite_url: str, migrated_sqlite: Path) -> AsyncIterator[Node]:
    """A node on a free port. There is no payment provider: paying is tested end to end."""
    shutil.copy(migrated_sqlite, sqlite_url.removeprefix("sqlite:///"))
    settings = Settings(port=0, secret=SECRET, node_name="test")
    listener = listen("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    ground = Ground(
        valkey_url=valkey_url,
        database_url=sqlite_url,
        secret=SECRET,
        stripe_key="sk_test_nobody",
        stripe_api="http://127.0.0.1:9",
        webhook_secrets=("whsec_test",),
        sandbox=True,
        folder=None,
        complete=_nothing_to_wait_for,
    )
    async with open_app(settings, ground, url) as app:
        server = make_server(make_asgi(app, (), url), log_level="warning", proxies=())
        started = asyncio.Event()
        serving = asyncio.create_task(serve(server, listener, started))
        await started.wait()
        try:
            yield Node(app, url)
        finally:
            server.stop_accepting()
            await app.hub.drain(0)
            server.stop()
            await serving
            listener.close()
