"""What every command of `python -m live` begins and ends with.

Responsible for reading settings with the flags over them, for the log's form, and for saying in one
sentence what an operator can mend. It must not know any command.
"""

import asyncio
import logging
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import typer

from commerce.errors import Unavailable
from commerce.people import MasterLost
from live.child import ChildFailed
from live.data_folder import FolderInUse
from live.engines import EngineMissing
from live.patience import EngineAway
from live.settings import BadSettings, Settings
from realtime.crowd import new_loop

SWITCH_S: Final = 0.001
"""How long one thread may keep the others from Python's lock. The thread that writes winners gives
it away at each of its thirty calls of the database, and with Python's 5 ms each got it back late: a
batch that works for 15 ms took 40."""
NOISY: Final = ("alembic", "httpx", "httpcore", "stripe")
"""Libraries that log each request, some of them with its address."""

Data = Annotated[Path | None, typer.Option(help="Data folder (LIVE_DATA).")]


def settings_of(**flags: object) -> Settings:
    """Settings of the environment, overruled by flags. Ends the program if they make no sense."""
    given = {
        f"LIVE_{name.upper()}": str(value) for name, value in flags.items() if value is not None
    }
    try:
        settings = Settings.from_environ(flags=given)
    except BadSettings as wrong:
        fail(str(wrong))
    which = f"[{settings.node_name}] " if settings.node_name else ""
    logging.basicConfig(
        level=settings.log_level.upper(),
        format=f"%(asctime)s %(levelname)-7s {which.replace('%', '%%')}%(name)s: %(message)s",
        stream=sys.stderr,
    )
    for noisy in NOISY:
        logging.getLogger(noisy).setLevel(logging.WARNING)
    return settings


def fail(text: str) -> NoReturn:
    typer.echo(f"vitrine: {text}", err=True)
    raise SystemExit(2)


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run a command; what an operator can mend is one sentence, not a stack."""
    sys.setswitchinterval(SWITCH_S)
    try:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(work)
    except (FolderInUse, EngineMissing, EngineAway, ChildFailed, MasterLost) as wrong:
        fail(str(wrong))
    except Unavailable:
        fail("the database went away in the middle; nothing half done was kept, try again")
    except KeyboardInterrupt:
        raise SystemExit(130) from None
