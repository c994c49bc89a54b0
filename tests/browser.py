"""Finds a Chromium for the browser tests, and installs one where that takes no decision.

`python -m tests.browser` says what it found or did; `find` is what the tests use. Installing is
done only as root with apt-get (a container, a CI machine): elsewhere it is the owner's choice.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome")
OVERRIDE = "CHROMIUM"
APT_TIMEOUT_S = 600
LAUNCH_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
]


def find() -> Path | None:
    """A Chromium: $CHROMIUM, one on PATH, or the one Playwright installed; None without."""
    given = os.environ.get(OVERRIDE)
    for name in [given] if given else NAMES:
        found = shutil.which(name)
        if found:
            return Path(found)
    return _of_playwright()


def _of_playwright() -> Path | None:
    """Playwright's own download, in the folder where it keeps them."""
    home = Path.home()
    places = [home / ".cache" / "ms-playwright", home / "Library" / "Caches" / "ms-playwright"]
    if os.environ.get("PLAYWRIGHT_BROWSERS_PATH"):
        places.insert(0, Path(os.environ["PLAYWRIGHT_BROWSERS_PATH"]))
    for place in places:
        for pattern in (
            "chromium-*/chrome-linux*/chrome",
            "chromium-*/chrome-mac*/*.app/*/MacOS/*",
        ):
            found = sorted(place.glob(pattern))
            if found:
                return found[-1]
    return None


def prepare() -> tuple[bool, str]:
    """Find one, or install one where that is ours to do. Returns (there is one, what was done)."""
    found = find()
    if found:
        return True, f"browser: {found}"
    if sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("apt-get"):
        advice = "install Chromium, run `.venv/bin/python -m playwright install chromium`, or set "
        return False, f"browser: none found; {advice}{OVERRIDE}. The browser tests are skipped."
    print("browser: none found; installing Debian's chromium with apt-get (about 20 s)", flush=True)
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (
        ["apt-get", "update"],
        ["apt-get", "install", "-y", "--no-install-recommends", "chromium"],
    ):
        run = subprocess.run(command, timeout=APT_TIMEOUT_S, check=False, env=environment, **quiet)
        if run.returncode != 0:
            return False, f"browser: {' '.join(command)} failed:\n{run.stdout[-2000:]}"
    found = find()
    return found is not None, f"browser: installed {found}"


if __name__ == "__main__":
    there, done = prepare()
    print(done)
    sys.exit(0 if there else 1)
