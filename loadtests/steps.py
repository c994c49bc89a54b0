"""The log of a drill: how long each step took, and what went wrong.

Responsible for that alone. A step that fails ends the drill, because the next one would stand on
it; a check that fails is written down and the drill goes on: one run should tell all it can.
"""

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Any, NoReturn

import httpx

from loadtests.refused import ConnectionLost, Refused, TooLate

FAILURES = (Refused, ConnectionLost, TooLate, httpx.HTTPError, OSError)
"""What the server can do to a drill. Anything else is a fault of the drill and is raised."""


class StepFailed(Exception):
    """A step did not end well; it is written down already."""


class Steps:
    """`ms` by step and `problems`, both in the order they came."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.ms: dict[str, int] = {}
        self.problems: list[str] = []
        self._quiet = quiet
        self._name = ""

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Times what is done inside. Raises `StepFailed` when the server failed it."""
        started = time.monotonic()
        self._name = name
        try:
            yield
        except FAILURES as error:
            self.wrong(f"{type(error).__name__}: {error}")
            raise StepFailed(name) from error
        finally:
            self.ms[name] = round((time.monotonic() - started) * 1000)
            self.say(f"{name:<12} {self.ms[name]:>6} ms")

    def check(self, true: bool, otherwise: str) -> None:
        """Write down what is not as it should be."""
        if not true:
            self.wrong(otherwise)

    def stop(self, what: str) -> NoReturn:
        """A problem after which the story makes no sense. Raises `StepFailed`."""
        self.wrong(what)
        raise StepFailed(self._name)

    def wrong(self, what: str) -> None:
        """A problem, with the step it belongs to."""
        problem = f"{self._name}: {what}"
        self.problems.append(problem)
        self.say(f"  ! {problem}")

    def say(self, line: str) -> None:
        """Progress for a person; never on standard output, whose last line is the result."""
        if not self._quiet:
            print(line, file=sys.stderr, flush=True)

    def result(self, **more: Any) -> dict[str, Any]:
        """The JSON object of a drill."""
        return {"ok": not self.problems, "steps": self.ms, **more, "problems": self.problems}
