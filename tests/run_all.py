"""Every check and test, in two lanes for two cores: what `make test` and CI run.

    python tests/run_all.py            everything
    python tests/run_all.py --quick    without the browser tests and those marked slow

All steps run, whatever fails before them; a table closes the output, with pytest's own closing
lines, what failed by name, and one line of totals last. The exit code is 0 only when every step
passed. With CI=true what cannot run here (a browser, node) is a failure; elsewhere it is said and
skipped.

At most `UNSTEADY_MAX` failed tests are tried once more, alone: the first time two lanes shared two
cores with several servers and a browser each. What passes then is listed as unsteady, by name, so
that it gets mended; it does not refuse the other 3,000. More failures than that are no coincidence.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
IN_CI = os.environ.get("CI") == "true"
STEP_TIMEOUT_S = 2400
FOLDERS = ("commerce", "live", "loadtests", "realtime", "e2e")
"""Each is a step, the longest first; one more takes all others, so no folder can be forgotten."""
CACHE = ".pytest_cache"
LANES = 2
"""As many as CI has cores; a lane that is done takes the next step."""
TESTS_FAILED, NO_TESTS = 1, 5
UNSTEADY_MAX = 5
AGAIN_TIMEOUT_S = 600
LINE_CHARACTERS = 300
CLOSING = re.compile(r"^=* ?((?:\d+ [a-z]+(?:, )?)+) in [\d.]+s.*$")
BROKEN = re.compile(r"^(?:FAILED|ERROR) (tests/.+)$")
NODE_COUNT = re.compile(r"^[#ℹ] (pass|fail|skipped) (\d+)$")
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass
class Step:
    """One command and what came of it."""

    name: str
    command: list[str]
    ok: bool = False
    code: int | None = None
    seconds: float = 0.0
    note: str = ""
    closing: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    """Tests that failed, each with the first line of why, as pytest lists them."""
    unsteady: list[str] = field(default_factory=list)
    """Those of them that passed when they were tried again alone."""


_printing = threading.Lock()
_stopping = threading.Event()
_running: set["subprocess.Popen[str]"] = set()


def say(text: str) -> None:
    with _printing:
        print(text, flush=True)


def run(step: Step, timeout_s: float | None = None) -> Step:
    """Run one command, passing its output on line by line with the step's name before it."""
    timeout_s = STEP_TIMEOUT_S if timeout_s is None else timeout_s
    since = time.monotonic()
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        step.command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    _running.add(process)
    limit = threading.Timer(timeout_s, kill, [process])
    limit.start()
    with process:
        assert process.stdout is not None
        for line in process.stdout:
            say(f"{step.name:>16} │ {line.rstrip()}")
            note_counts(step, COLOURS.sub("", line.rstrip()))
        step.code = code = process.wait()
    limit.cancel()
    _running.discard(process)
    step.seconds = time.monotonic() - since
    step.ok = code == 0 or (code == NO_TESTS and step.name.startswith("pytest"))
    if not step.ok:
        timed_out = step.seconds >= timeout_s
        step.note = f"stopped after {timeout_s:.0f} s" if timed_out else f"exit code {code}"
    return step


def note_counts(step: Step, line: str) -> None:
    """Keep what failed and the numbers from the closing lines of pytest and node."""
    if step.name.startswith("pytest") and (found := BROKEN.match(line)):
        step.broken.append(found[1])
    elif step.name.startswith("pytest") and (found := CLOSING.match(line)):
        step.closing = line
        step.counts = {
            word.rstrip("s") if word.startswith("error") else word: int(number)
            for number, word in re.findall(r"(\d+) ([a-z]+)", found[1])
        }
    elif step.name == "node" and (found := NODE_COUNT.match(line)):
        word = {"pass": "passed", "fail": "failed"}.get(found[1], found[1])
        step.counts[word] = int(found[2])


def kill(process: "subprocess.Popen[str]") -> None:
    """End a step with everything it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def tool(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", name, *arguments]


def checks() -> list[Step]:
    return [
        Step("ruff", tool("ruff", "check", ".")),
        Step("format", tool("ruff", "format", "--check", ".")),
        Step("mypy", tool("mypy")),
    ]


def node_step() -> Step:
    """The page's own tests; node is optional at home and required in CI."""
    files = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("tests/web_client/*.test.mjs"))
    step = Step("node", ["node", "--test", "--test-reporter=spec", *files])
    if not files:
        step.ok, step.note, step.command = True, "no tests yet", []
    elif not shutil.which("node"):
        step.ok, step.command = not IN_CI, []
        step.note = "node is not installed: the page's own tests were skipped"
    return step


def pytest_steps(quick: bool) -> list[Step]:
    folders = [folder for folder in FOLDERS if (ROOT / "tests" / folder).is_dir()]
    rest = ["tests", *(f"--ignore=tests/{folder}" for folder in folders)]
    chosen = ["-m", "not browser and not slow"] if quick else []
    return [
        Step(
            f"pytest {name}",
            tool("pytest", *where, *chosen, "-o", f"cache_dir={CACHE}/{name}"),
        )
        for name, where in (*((folder, [f"tests/{folder}"]) for folder in folders), ("rest", rest))
    ]


def lane(steps: Iterable[Step]) -> None:
    for step in steps:
        if step.command and not _stopping.is_set():
            run(step)


def _taken(waiting: "deque[Step]") -> Iterator[Step]:
    """The next step that no lane has taken, as long as there is one."""
    while True:
        try:
            yield waiting.popleft()
        except IndexError:
            return


def in_lanes(*lanes: Iterable[Step]) -> None:
    """Run lanes side by side. Steps have sessions of their own, so Ctrl-C is passed on here."""
    with ThreadPoolExecutor(len(lanes)) as pool:
        try:
            for done in [pool.submit(lane, steps) for steps in lanes]:
                done.result()
        except KeyboardInterrupt:
            _stopping.set()
            for process in list(_running):
                kill(process)
            raise


def try_again(steps: list[Step]) -> None:
    """Try a few failed tests once more, one folder after the other with nothing beside them."""
    failed = [step for step in steps if not step.ok and step.broken]
    if any(step.code != TESTS_FAILED for step in steps if not step.ok):
        return
    if sum(len(step.broken) for step in failed) > UNSTEADY_MAX:
        return
    for step in failed:
        command = [*step.command, "--last-failed", "--last-failed-no-failures=none"]
        if run(Step(f"again {step.name.split()[-1]}", command), AGAIN_TIMEOUT_S).ok:
            step.ok, step.note = True, ""
            step.unsteady, step.broken = step.broken, []


def prepare_browser() -> Step:
    step = Step("browser", tool("tests.browser"))
    run(step)
    if not step.ok and not IN_CI:
        step.ok, step.note = True, "none: the browser tests were skipped"
    return step


def summary(steps: list[Step], seconds: float) -> bool:
    """Print the table, pytest's closing lines and the totals; whether everything passed."""
    total: dict[str, int] = {}
    print("\n" + "─" * 72)
    for step in steps:
        for word, number in step.counts.items():
            total[word] = total.get(word, 0) + number
        counts = ", ".join(f"{number} {word}" for word, number in step.counts.items() if number)
        verdict = "ok" if step.ok else "FAILED"
        print(f"{step.name:<16} {verdict:<7} {step.seconds:>6.1f} s  {step.note or counts}")
    print("─" * 72)
    for step in steps:
        if step.closing:
            print(step.closing)
    good = all(step.ok for step in steps)
    unsteady = [test for step in steps for test in step.unsteady]
    for verdict, tests in (
        ("unsteady", unsteady),
        ("FAILED", [test for step in steps for test in step.broken]),
    ):
        for test in tests:
            print(f"{verdict:<16} {test[:LINE_CHARACTERS]}")
    failed = total.get("failed", 0) + total.get("error", 0) - len(unsteady)
    print(f"{'everything passed' if good else 'NOT everything passed'}, in {seconds:.0f} s")
    passed, skipped = total.get("passed", 0), total.get("skipped", 0)
    tried = f", {len(unsteady)} unsteady" if unsteady else ""
    print(f"{passed} passed, {failed} failed{tried}, {skipped} skipped")
    return good


def main(arguments: list[str]) -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    quick = "--quick" in arguments
    since = time.monotonic()
    steps = [] if quick else [prepare_browser()]
    style, node, tests = checks(), node_step(), pytest_steps(quick)
    try:
        in_lanes(style, [node])
        waiting = deque(tests)
        in_lanes(*(_taken(waiting) for _ in range(LANES)))
        try_again(tests)
    except KeyboardInterrupt:
        say("stopped")
        return 130
    return 0 if summary([*steps, *style, node, *tests], time.monotonic() - since) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
