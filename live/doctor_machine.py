"""The doctor's look at this machine, the installed packages, the data folder and the settings.

Responsible for the verdicts that need no engine. It must not read the environment (settings are
arguments) nor write anything that stays: the disk's speed is measured on a file that is removed.
"""

import importlib.metadata
import ipaddress
import os
import resource
import shutil
import stat
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from live.crash import CrashAt
from live.data_folder import SECRET_BYTES
from live.doctor import Finding

PYTHON_MIN: Final = (3, 11)
FILES_WARN: Final = 4096
"""Each viewer is one open file."""
FILES_FAIL: Final = 256
DISK_WARN_BYTES: Final = 2 << 30
DISK_FAIL_BYTES: Final = 256 << 20
SYNC_ROUNDS: Final = 5
SYNC_WARN_MS: Final = 20.0
"""A sale waits for one sync. A local SSD needs 1 ms, a spinning disk 10."""
PROJECT: Final = Path(__file__).resolve().parent.parent / "pyproject.toml"


def judge_machine(folder: Path) -> list[Finding]:
    """Python, packages, open files, and the data folder with its disk."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return [
        judge_python(sys.version_info[:3]),
        judge_packages(_requirements()),
        judge_files(soft if soft != resource.RLIM_INFINITY else sys.maxsize),
        *judge_folder(folder),
    ]


def judge_python(version: tuple[int, ...]) -> Finding:
    """Whether this Python is new enough."""
    found = ".".join(map(str, version))
    if version < PYTHON_MIN:
        return Finding("fail", "python", found, "Use Python 3.11 or newer.")
    return Finding("ok", "python", found)


def judge_packages(requirements: Sequence[str]) -> Finding:
    """Installed versions against requirements of the forms `name==1.2` and `name~=1.2`."""
    wrong = []
    for requirement in requirements:
        name, operator, wanted = _split(requirement)
        try:
            installed = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{name} is missing")
            continue
        if not _matches(installed, operator, wanted):
            wrong.append(f"{name} {installed} instead of {operator}{wanted}")
    if wrong:
        advice = "Run `make run`, which installs exactly the versions that were tested."
        return Finding("fail", "packages", "; ".join(wrong), advice)
    return Finding("ok", "packages", f"{len(requirements)} as required")


def judge_files(limit: int) -> Finding:
    """The soft limit of open files."""
    found = f"at most {limit}" if limit < sys.maxsize else "no limit"
    if limit < FILES_WARN:
        level = "fail" if limit < FILES_FAIL else "warn"
        advice = "Raise it (ulimit -n, LimitNOFILE=): each viewer takes one."
        return Finding("fail" if level == "fail" else "warn", "open files", found, advice)
    return Finding("ok", "open files", found)


def judge_folder(folder: Path) -> list[Finding]:
    """Rights, free space and sync time of the data folder; of its parent before it exists."""
    if not folder.is_dir():
        return [
            Finding("ok", "data folder", f"{folder} is not there yet: the first start makes it")
        ]
    return [_rights(folder), judge_space(shutil.disk_usage(folder).free), _sync(folder)]


def judge_space(free: int) -> Finding:
    """Free bytes on the disk of the data folder."""
    found = f"{free / (1 << 30):.1f} GiB free"
    if free < DISK_FAIL_BYTES:
        return Finding("fail", "disk space", found, "Free some now: without it sales stop.")
    if free < DISK_WARN_BYTES:
        return Finding("warn", "disk space", found, "Free some before the next show.")
    return Finding("ok", "disk space", found)


def judge_settings(
    *,
    host: str,
    public_url: str,
    origins: Sequence[str],
    secret: bytes | str | None,
    provider_key: str = "",
    webhook_secrets: Sequence[str] = (),
    crash_at: CrashAt | None = None,
) -> list[Finding]:
    """Whether the settings fit together. `secret` None or empty: the data folder keeps one."""
    findings = [_address(host, public_url), _origins(public_url, origins)]
    if secret and len(secret) < SECRET_BYTES:
        advice = f"Give LIVE_SECRET {SECRET_BYTES} random characters or more."
        findings.append(Finding("fail", "secret", f"{len(secret)} long", advice))
    else:
        where = "given by LIVE_SECRET" if secret else "kept in the data folder"
        findings.append(Finding("ok", "secret", where))
    if provider_key and not webhook_secrets:
        advice = "Set LIVE_STRIPE_WEBHOOK_SECRET, or payments are only found by polling."
        findings.append(Finding("fail", "payments", "a key, but no webhook secret", advice))
    elif provider_key:
        kind = "live" if "_live_" in provider_key else "test"
        findings.append(Finding("ok", "payments", f"Stripe, {kind} mode"))
    else:
        advice = "Set LIVE_STRIPE_KEY before you sell: the sandbox takes no money."
        level = "warn" if public_url and not _local(public_url) else "ok"
        findings.append(
            Finding("warn", "payments", "sandbox", advice)
            if level == "warn"
            else Finding("ok", "payments", "sandbox")
        )
    if crash_at is not None:
        advice = "Take LIVE_CRASH_AT out: it is for drills and kills the process on purpose."
        findings.append(Finding("fail", "crash point", f"armed at {crash_at.point}", advice))
    return findings


def _address(host: str, public_url: str) -> Finding:
    name = "public address"
    if not public_url:
        if _local(f"http://{host}"):
            return Finding("ok", name, f"none, listening on {host} only")
        advice = "Set LIVE_PUBLIC_URL: links and payments need the address viewers use."
        return Finding("warn", name, f"none, listening on {host}", advice)
    if public_url.startswith("https://") or _local(public_url):
        return Finding("ok", name, public_url)
    advice = "Put a proxy with a certificate in front: tokens and addresses travel in the clear."
    return Finding("fail", name, public_url, advice)


def _origins(public_url: str, origins: Sequence[str]) -> Finding:
    found = ", ".join(origins) or "only our own pages"
    for origin in origins:
        parts = urlsplit(origin)
        if "*" in origin or not parts.netloc or parts.path.strip("/"):
            advice = "Write each as https://host, without a path or a star."
            return Finding("fail", "origins", found, advice)
        if parts.scheme != "https" and not _local(origin) and public_url.startswith("https://"):
            advice = "A page without a certificate can be changed on its way: use https."
            return Finding("warn", "origins", found, advice)
    return Finding("ok", "origins", found)


def _local(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _rights(folder: Path) -> Finding:
    name = "data folder"
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        return Finding("fail", name, f"{folder} cannot be written", "Give it to this user.")
    for path in (folder, folder / "secret"):
        if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077:
            mode = "700" if path.is_dir() else "600"
            advice = f"chmod {mode} {path}: it holds secrets and addresses."
            return Finding("warn", name, f"others may look into {path}", advice)
    return Finding("ok", name, str(folder))


def _sync(folder: Path) -> Finding:
    """How long the disk takes to make a small write durable."""
    times_ms = []
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            for _ in range(SYNC_ROUNDS):
                file.write(b"x" * 4096)
                file.flush()
                since = time.perf_counter()
                os.fsync(file.fileno())
                times_ms.append((time.perf_counter() - since) * 1000)
    except OSError as error:
        return Finding("fail", "disk sync", f"failed: {error.strerror}", "Look at this disk.")
    middle = sorted(times_ms)[SYNC_ROUNDS // 2]
    found = f"median {middle:.1f} ms"
    if middle > SYNC_WARN_MS:
        return Finding("warn", "disk sync", found, "Use a local SSD: each sale waits for a sync.")
    return Finding("ok", "disk sync", found)


def _requirements() -> list[str]:
    """What pyproject.toml beside the program asks for; empty where only the packages lie."""
    try:
        project = tomllib.loads(PROJECT.read_text())["project"]
    except (OSError, KeyError):
        return []
    return [str(line) for line in project["dependencies"]]


def _split(requirement: str) -> tuple[str, str, str]:
    for operator in ("==", "~="):
        name, found, wanted = requirement.partition(operator)
        if found:
            return name.split("[")[0].strip(), operator, wanted.strip()
    return requirement.split("[")[0].strip(), "~=", "0.0"


def _matches(installed: str, operator: str, wanted: str) -> bool:
    have, want = _numbers(installed), _numbers(wanted)
    if operator == "==":
        return have == want
    return have >= want and have[: len(want) - 1] == want[:-1]


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers: 9.1.2.post2 is (9, 1, 2)."""
    numbers: list[int] = []
    for part in version.split("."):
        if not part.isdecimal():
            break
        numbers.append(int(part))
    return tuple(numbers)
