"""What was measured, on what: without it a figure says nothing."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import sqlite3
import subprocess
from pathlib import Path

from .harness import Context

LIBRARIES = ("aiohttp", "uvloop", "orjson", "jsonschema-rs", "PyYAML")


def heading(context: Context, seconds: float) -> str:
    """Date, commit and machine, as the beginning of the results."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES)
    load = os.getloadavg()[0]
    cores = os.cpu_count() or 1
    busy = f" **The machine was busy (load {load:.1f} on {cores} cores): ratios only.**" if load > 1.5 * cores else ""
    today = datetime.datetime.now(datetime.UTC).date()
    return (
        "# Results\n\n"
        f"Written by `python -m benchmarks` on {today}, commit {_commit(context.tree)}, "
        f"{context.rounds} rounds, {seconds / 60:.0f} minutes.\n"
        f"{_processor()}, {cores} cores, {_memory():.0f} GB, Linux {platform.release().split('-')[0]}, "
        f"{_filesystem(context.folder)}; Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, "
        f"{versions}.{busy}\n\n"
        "Medians; contenders ran in turn. Ratios travel between machines, seconds do not. 1 MB is 10^6 bytes.\n"
    )


def _commit(tree: Path) -> str:
    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=tree, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    changed = " and changes" if git("status", "--porcelain", "--", "batchrunner") else ""
    return (git("rev-parse", "--short=12", "HEAD") or "unknown") + changed


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _memory() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9


def _filesystem(folder: Path) -> str:
    """The kind of file system that the ledgers were on: fsync differs more between these than anything else here."""
    best, kind = "", "?"
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, found, *_ = line.split(" ")
        if str(folder.resolve()).startswith(mount.rstrip("/") + "/") and len(mount) >= len(best):
            best, kind = mount, found
    return kind
