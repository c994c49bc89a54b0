"""The house stands as HOUSE says, and the rules that say so are themselves able to fail."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import architecture
from tests.architecture import RULES, modules

ROOT = Path(__file__).resolve().parent.parent
DOCSTRING = '"""What it is for.\n\nWhat it must not know.\nWhy it is so.\n"""\n'
TYPE_ONLY = """
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from commerce.orders_sql import SqlOrders
"""

PLANTED = {
    # rule, file, its text after the docstring, what the finding says
    ("arrows", "realtime/hub.py", "from commerce.stock import Press", "no arrow"),
    ("arrows", "commerce/pay.py", "import live.shows", "no arrow"),
    ("arrows", "live/app.py", "import commerce.sandbox.server", "process of its own"),
    ("arrows", "loadtests/users.py", "from live.commands import Commands", "wire modules"),
    ("arrows", "live/x.py", "from tests.leaks import Stray", "its tests"),
    ("licences", "realtime/hub.py", "import redis.asyncio", "only *_redis.py"),
    ("licences", "commerce/stock_redis.py", "from sqlalchemy import text", "only *_sql.py"),
    ("licences", "commerce/pay.py", "def f():\n    import stripe", "only *_stripe.py"),
    ("licences", "commerce/pay.py", "import sqlite3", "only *_sql.py"),
    ("licences", "live/app.py", "from uvicorn.server import Server", "reaches into"),
    ("licences", "realtime/hub.py", "import starlette", "web framework"),
    ("adapters", "live/api.py", "from commerce.orders_sql import SqlOrders", "names the adapter"),
    ("adapters", "live/api.py", "from realtime import broker_redis", "names the adapter"),
    ("adapters", "commerce/record_sql.py", "import commerce.stock_redis", "names the adapter"),
    ("adapters", "live/__main__.py", "from live.shows_sql import X", "names the adapter"),
    ("adapters", "live/api.py", f"{TYPE_ONLY}else:\n  import live.shows_sql", "names the adapter"),
    ("docstrings", "live/__init__.py", "X = 1", "more than its docstring"),
    ("docstrings", "live/publish.lua", None, "does not open with a comment"),
    ("docstrings", "web_client/main.js", None, "does not open with a comment"),
    ("environment", "live/api.py", "import os\nX = os.environ", "reads os.environ"),
    ("environment", "live/api.py", "from os import environ", "imports os.environ"),
    ("environment", "live/api.py", "import os\nX = os.getenv('A')", "reads os.getenv"),
    ("clocks", "commerce/pay.py", "import time\nX = time.time()", "time.time"),
    ("clocks", "live/api.py", "import datetime\nX = datetime.datetime.now()", "datetime.now"),
    ("clocks", "live/api.py", "import uuid\nX = uuid.uuid4()", "uuid.uuid4"),
    ("names", "live/utils.py", "", "not the name of a thing"),
    ("names", "live/common/x.py", "", "not the name of a thing"),
    ("names", "live/api.py", "from live.shows import _secret", "private"),
    ("sizes", "live/api.py", "x = 1\n" * 500, "lines of 500"),
    ("sizes", "live/api.py", "class A:\n  async def f():\n" + "    x = 1\n" * 70, "has 71 lines"),
    ("relative_imports", "live/api.py", "from . import shows", "imports ."),
    ("relative_imports", "tests/live/test_x.py", "from ..x import y", "imports ..x"),
    ("bounds", "live/api.py", "import asyncio\nX = asyncio.Queue()", "without a bound"),
    ("places", "setup.py", "", "lies outside"),
    ("places", "scripts/deploy.sh", None, "lies outside"),
}

IMPORT_EVERYTHING = """
import importlib, json, sys, threading
root, names = sys.argv[1], json.loads(sys.argv[2])
sys.path.insert(0, root)
STARTS = {"socket.bind", "subprocess.Popen", "os.fork", "os.exec", "os.posix_spawn",
          "sqlite3.connect"}
CONNECTS = {"socket.connect", "socket.getaddrinfo"}
current, faults = "", []

def ours():
    # whose module does this: the nearest frame outside the standard library and this script
    frame = sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename
        if "/site-packages/" in file:
            return False
        if file.startswith(root):
            return True
        frame = frame.f_back
    return False

def hook(event, arguments):
    if event in CONNECTS or (event in STARTS and ours()):
        faults.append(f"{current} does {event} at import")
    elif event == "open" and isinstance(arguments[0], str) and arguments[0].startswith(root):
        if not arguments[0].endswith((".py", ".pyc")) and "/site-packages/" not in arguments[0]:
            faults.append(f"{current} reads {arguments[0]} at import")

def start(thread, original=threading.Thread.start):
    if ours():
        faults.append(f"{current} starts a thread at import")
    original(thread)

threading.Thread.start = start
sys.addaudithook(hook)
for current in names:
    try:
        importlib.import_module(current)
    except BaseException as error:
        faults.append(f"{current} cannot be imported: {error!r}")
json.dump(faults, sys.stdout)
"""


def plant(root: Path, where: str, text: str | None) -> None:
    path = root / where
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x = 1\n" if text is None else DOCSTRING + text + "\n")


def clean_tree(root: Path) -> Path:
    """A small house in which every rule has something to be content with."""
    for room in architecture.ROOMS:
        plant(root, f"{room}/__init__.py", "")
    plant(root, "realtime/broker_redis.py", "import redis.asyncio\nimport asyncio")
    plant(root, "commerce/orders_sql.py", "from sqlalchemy import text")
    plant(root, "commerce/pay_sql.py", "from commerce.orders_sql import X")
    plant(
        root,
        "commerce/sandbox/server.py",
        "import starlette, sqlite3\nimport time\nX = time.time()",
    )
    plant(root, "realtime/socket_uvicorn.py", "from uvicorn.protocols.websockets import x")
    plant(root, "live/app.py", "import uvicorn\nfrom commerce.orders_sql import X\nimport time")
    plant(root, "live/settings.py", "import os\nX = os.environ")
    plant(root, "live/api.py", TYPE_ONLY)
    plant(root, "live/__main__.py", "from live.server_uvicorn import serve")
    plant(root, "live/migrations/env.py", "import alembic\nimport commerce.schema_sql")
    plant(root, "loadtests/users.py", "from realtime import wire\nimport live.codes")
    plant(root, "loadtests/drills.py", "import os\nfrom live.app import X\nY = os.environ")
    plant(root, "tests/live/test_app.py", "from commerce.orders_sql import X")
    (root / "live" / "publish.lua").write_text("-- What it does.\n")
    (root / "web_client" / "vendor").mkdir(parents=True)
    (root / "web_client" / "vendor" / "x.js").write_text("x = 1\n")
    return root


def import_faults(root: Path, names: list[str]) -> list[str]:
    run = subprocess.run(
        [sys.executable, "-B", "-c", IMPORT_EVERYTHING, str(root), json.dumps(names)],
        capture_output=True,
        text=True,
        timeout=100,
        cwd="/",
        check=False,
    )
    assert run.returncode == 0, run.stderr
    found: list[str] = json.loads(run.stdout)
    return found


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps_the_rule(rule):
    found = list(rule(ROOT))
    assert not found, "\n".join(found)


def test_importing_any_module_connects_starts_and_reads_nothing():
    names = []
    for module in modules(ROOT):
        # Locust patches the interpreter when imported; Alembic's env.py is a script
        stands_apart = "locust" in module.text or module.where.startswith("live/migrations/")
        if not stands_apart:
            names.append(
                module.where.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            )
    assert len(names) > 10
    found = import_faults(ROOT, names)
    assert not found, "\n".join(found)


def test_a_clean_house_has_no_findings(tmp_path):
    root = clean_tree(tmp_path)
    assert [finding for rule in RULES for finding in rule(root)] == []


@pytest.mark.parametrize(("rule", "where", "text", "says"), sorted(PLANTED, key=str))
def test_a_planted_fault_is_found(tmp_path, rule, where, text, says):
    root = clean_tree(tmp_path)
    plant(root, where, text)
    found = list(getattr(architecture, rule)(root))
    assert any(says in finding and where in finding for finding in found), found


def test_a_module_without_its_reasons_is_found(tmp_path):
    (tmp_path / "live").mkdir()
    (tmp_path / "live" / "x.py").write_text('"""Short."""\n')
    assert list(architecture.docstrings(tmp_path)) == ["live/x.py opens with 1 lines of docstring"]


def test_every_rule_has_a_planted_fault():
    assert {rule for rule, *_ in PLANTED} == {rule.__name__ for rule in RULES}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("import socket\nsocket.create_server(('127.0.0.1', 0)).close()", "socket.bind"),
        ("import subprocess\nsubprocess.run(['true'])", "subprocess.Popen"),
        ("import threading\nthreading.Thread(target=int).start()", "starts a thread"),
        ("import sqlite3\nsqlite3.connect(':memory:').close()", "sqlite3.connect"),
        ("from pathlib import Path\nPath(__file__).with_name('x.lua').read_text()", "x.lua"),
        ("import no_such_package", "cannot be imported"),
    ],
)
def test_work_at_import_is_found(tmp_path, text, says):
    plant(tmp_path, "planted/__init__.py", text)
    (tmp_path / "planted" / "x.lua").write_text("-- x\n")
    [finding, *_] = import_faults(tmp_path, ["planted"])
    assert says in finding
