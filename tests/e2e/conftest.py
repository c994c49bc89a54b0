"""The whole program and a real Chromium, for tests that do what a person does.

Browser tests are plain functions (Playwright's synchronous interface) and carry the mark `browser`:

    @pytest.mark.browser
    def test_a_viewer_sees_the_show(program, page): ...

A browser lives as long as a test module: a running one occupies the thread's event loop, so an
async test cannot stand in the same module. A failing test leaves a picture of each of its pages,
their console and the program's output under test-results/.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.browser import LAUNCH_ARGUMENTS, find
from tests.program import Program

RESULTS = Path(__file__).resolve().parents[2] / "test-results"
VIEW = {"width": 1280, "height": 800}
ACTION_TIMEOUT_MS = 60_000
"""For a click to find its button: generous, since it is spent only by a failing test, and a busy
machine with two cores has taken ten seconds to draw a page."""
TEST_TIMEOUT_S = 900
"""A whole trip through the program; a quiet machine needs less than a minute for the longest."""
expect.set_options(timeout=ACTION_TIMEOUT_MS)
FAILED = pytest.StashKey[bool]()


@pytest.fixture
def program(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Program]:
    """`python -m live serve` with a folder and a port of its own and the payment sandbox."""
    with Program(tmp_path / "data") as running:
        yield running
        if request.node.stash.get(FAILED, False):
            _keep(request, "program.log").write_text(running.output)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for the tests of a module; they get contexts of their own."""
    executable = find()
    if executable is None:
        pytest.skip("no Chromium was found: see python -m tests.browser")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=str(executable), args=LAUNCH_ARGUMENTS
        )
        yield chromium
        chromium.close()


@pytest.fixture
def new_context(
    request: pytest.FixtureRequest, browser: Browser
) -> Iterator[Callable[[], BrowserContext]]:
    """Makes one more person: cookies and storage of their own. Closed after the test."""
    contexts: list[BrowserContext] = []
    console: list[str] = []

    def make() -> BrowserContext:
        context = browser.new_context(viewport=VIEW, locale="en-US")
        context.set_default_timeout(ACTION_TIMEOUT_MS)
        context.on("console", lambda line: console.append(f"{line.type}: {line.text}"))
        context.on("weberror", lambda error: console.append(f"uncaught: {error.error}"))
        contexts.append(context)
        return context

    yield make
    if request.node.stash.get(FAILED, False):
        pages = [page for context in contexts for page in context.pages]
        for number, page in enumerate(pages, 1):
            page.screenshot(path=_keep(request, f"page-{number}.png"), timeout=ACTION_TIMEOUT_MS)
        _keep(request, "console.log").write_text("\n".join(console))
    for context in contexts:
        context.close()


@pytest.fixture
def new_page(new_context: Callable[[], BrowserContext]) -> Callable[[], Page]:
    """Makes a page of one more person: `host, viewer = new_page(), new_page()`."""
    return lambda: new_context().new_page()


@pytest.fixture
def page(new_page: Callable[[], Page]) -> Page:
    """A page, where one person is enough."""
    return new_page()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Trips through the program may take longer than other tests."""
    for item in items:
        if item.get_closest_marker("browser") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(TEST_TIMEOUT_S))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Iterator[None] | pytest.TestReport:
    """Let the fixtures know that the test failed."""
    report: pytest.TestReport = yield
    if report.failed and report.when == "call":
        item.stash[FAILED] = True
    return report


def _keep(request: pytest.FixtureRequest, name: str) -> Path:
    RESULTS.mkdir(exist_ok=True)
    test = re.sub(r"[^\w-]+", "-", request.node.nodeid.removeprefix("tests/e2e/"))
    return RESULTS / f"{test}-{name}"
