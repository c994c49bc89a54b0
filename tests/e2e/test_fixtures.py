"""The ground that the end-to-end tests stand on: the browser, the pictures, the program's life."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.program import Program

ROOT = Path(__file__).resolve().parents[2]

TINY_SITE = """
import http.server, signal, sys

PAGE = b"<title>Tiny</title><button onclick='this.textContent=++n'>0</button><script>n=0</script>"

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, *_):
        pass

server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
print(f"It is running at http://127.0.0.1:{server.server_port}")
print(f"  host console   http://127.0.0.1:{server.server_port}/host#link=abc", flush=True)
try:
    server.serve_forever()
except KeyboardInterrupt:
    server.server_close()
"""

FAILING_TEST = """
import pytest

@pytest.mark.browser
def test_that_fails(page):
    page.set_content("<h1>Seen in the picture</h1>")
    page.evaluate("console.log('said by the page')")
    raise AssertionError("on purpose")
"""


def tiny_site(folder: Path) -> Program:
    return Program(folder, command=(sys.executable, "-c", TINY_SITE))


@pytest.mark.browser
def test_two_people_open_a_page_of_a_started_program_and_click(tmp_path, new_page):
    with tiny_site(tmp_path) as site:
        ada, ben = new_page(), new_page()
        for person in (ada, ben):
            person.goto(site.url)
            person.click("button")
        ada.click("button")
        assert (ada.inner_text("button"), ben.inner_text("button")) == ("2", "1")
        assert ada.title() == "Tiny"
        assert site.host_link == f"{site.url}/host#link=abc"


@pytest.mark.browser
def test_the_browser_has_what_the_pages_need(page):
    found = page.evaluate(
        """() => ({
            h264: MediaSource.isTypeSupported('video/mp4; codecs="avc1.42E01E,mp4a.40.2"'),
            socket: typeof WebSocket,
            maps: HTMLScriptElement.supports('importmap'),
        })"""
    )
    assert found == {"h264": True, "socket": "function", "maps": True}


@pytest.mark.browser
def test_a_failing_test_leaves_a_picture_and_what_the_page_said(tmp_path):
    """Run by a pytest of its own, on a copy of this folder's conftest."""
    folder = tmp_path / "tests" / "e2e"
    folder.mkdir(parents=True)
    (folder / "conftest.py").write_text((ROOT / "tests" / "e2e" / "conftest.py").read_text())
    (folder / "test_it.py").write_text(FAILING_TEST)
    (tmp_path / "pytest.ini").write_text(f"[pytest]\npythonpath = {ROOT}\nmarkers = browser: x\n")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "."],
        cwd=tmp_path,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert "1 failed" in run.stdout, run.stdout + run.stderr
    kept = sorted((tmp_path / "test-results").iterdir())
    assert [path.suffix for path in kept] == [".log", ".png"]
    assert "said by the page" in kept[0].read_text()
    assert kept[1].read_bytes().startswith(b"\x89PNG")


def test_a_program_that_ends_at_once_is_reported_with_what_it_said(tmp_path):
    broken = Program(tmp_path, command=(sys.executable, "-c", "raise SystemExit('no luck')"))
    with pytest.raises(AssertionError, match="no luck"):
        broken.start()


def test_a_program_that_ignores_ctrl_c_is_reported_and_killed(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.program.STOP_DEADLINE_S", 0.5)
    deaf = (
        "import signal, time; signal.signal(2, signal.SIG_IGN); "
        "print('running at http://127.0.0.1:1', flush=True); time.sleep(60)"
    )
    program = Program(tmp_path, command=(sys.executable, "-c", deaf)).start()
    with pytest.raises(AssertionError, match="did not end"):
        program.stop()


def test_an_end_with_an_error_code_fails_the_test(tmp_path):
    fails = TINY_SITE + "\nsys.exit(4)"
    program = Program(tmp_path, command=(sys.executable, "-c", fails))
    with pytest.raises(AssertionError, match="ended with 4"), program:
        assert program.pid
