"""The machine: Python, packages, SQLite, YAML, open files, and the user's own upload command."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from .. import __version__
from ..engine.offer import UPLOAD
from ..ledger.connection import MIN_SQLITE
from .check import Check, Level

PACKAGES = ("aiohttp", "aiosqlite", "av", "click", "jsonschema", "jsonschema-rs", "orjson", "pillow", "PyYAML", "rich")
"""What has to be installed; uvloop is only faster."""

MIN_OPEN_FILES = 256
"""Below this many open files a run with the default limits can run out."""


def checks() -> Iterator[Check]:
    """Python, packages, SQLite, YAML, open files; the upload command where there is one."""
    yield Check("python", Level.OK, f"{platform.python_version()}, batchrunner {__version__}, {platform.platform()}")
    yield _packages()
    yield sqlite_check(sqlite3.sqlite_version_info)
    yield _yaml()
    yield open_files_check(_open_files())
    if os.environ.get(UPLOAD, "").strip():
        yield upload_check(os.environ[UPLOAD])


def _packages() -> Check:
    from importlib.metadata import PackageNotFoundError, version

    found, missing = [], []
    for name in (*PACKAGES, "uvloop"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    if missing and missing != ["uvloop"]:
        return Check("packages", Level.FAIL, f"missing: {', '.join(missing)}", f"pip install {' '.join(missing)}")
    fix = "pip install uvloop (optional: it is faster)" if missing else ""
    return Check("packages", Level.OK, ", ".join(found), fix)


def sqlite_check(version: tuple[int, ...]) -> Check:
    """Whether that SQLite can hold the ledger.

    3.7.0 to 3.51.2, but not 3.50.7 and 3.44.6, can corrupt a WAL when two connections write or checkpoint at once
    (FAILURES.md, SQLite; sqlite.org/wal.html, "the WAL-reset bug").
    """
    text = ".".join(map(str, version))
    if version < MIN_SQLITE:
        return Check("sqlite", Level.FAIL, f"{text} is too old", "use a Python with SQLite 3.37 or newer")
    if version <= (3, 51, 2) and version not in ((3, 50, 7), (3, 44, 6)):
        return Check(
            "sqlite",
            Level.WARN,
            f"{text} has a rare WAL bug that needs two writers at once; batchrunner has one, so that it is not met",
            "never write to the ledger with another program; SQLite 3.51.3 and newer are free of it",
        )
    return Check("sqlite", Level.OK, text)


def _yaml() -> Check:
    import yaml

    if yaml.__with_libyaml__:
        return Check("yaml", Level.OK, f"PyYAML {yaml.__version__} with libyaml")
    return Check(
        "yaml",
        Level.WARN,
        f"PyYAML {yaml.__version__} without libyaml: large manifests load several times slower",
        "install a PyYAML wheel, or libyaml-dev before building it",
    )


def upload_check(command: str) -> Check:
    """Whether there is a program to run for BATCHRUNNER_UPLOAD. It is not run."""
    fix = f"set {UPLOAD} to a command that takes a file's path and prints its https URL, or unset it (docs/chains.md)"
    try:
        words = shlex.split(command)
    except ValueError as error:
        return Check("upload", Level.FAIL, f"{UPLOAD} is no command line: {error}", fix)
    name = words[0] if words else ""
    if (found := shutil.which(name)) is not None:
        return Check("upload", Level.OK, f"{found} ({UPLOAD}; it is not run here)")
    place = Path(name)
    if not os.path.dirname(name):
        said = f"{name} is not found on the PATH"
    elif not place.exists():
        said = f"{name} does not exist" + ("" if place.is_absolute() else f" in {Path.cwd()}")
    elif place.is_dir():
        said = f"{name} is a folder"
    else:
        said, fix = f"{name} is not executable", f"chmod +x {shlex.quote(name)}"
    return Check("upload", Level.FAIL, f"{UPLOAD}: {said}", fix)


def _open_files() -> int | None:
    try:
        import resource
    except ImportError:
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def open_files_check(limit: int | None) -> Check:
    """Whether so many open files are enough; None for no limit."""
    if limit is None:
        return Check("open files", Level.OK, "no limit")
    if limit < MIN_OPEN_FILES:
        return Check("open files", Level.WARN, f"the limit is {limit}", "ulimit -n 1024 before the run")
    return Check("open files", Level.OK, f"the limit is {limit}")
