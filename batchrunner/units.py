"""Files for systemd: what may stand in a unit, how it is written there, and what starts this batchrunner."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from .exits import UsageError

SYSTEM_UNITS = Path("/etc/systemd/system")
SYSTEM_SETTINGS = Path("/etc/batchrunner")

_PLAIN = re.compile(r"[A-Za-z0-9_./=@+:-]+")


def program() -> tuple[str, ...]:
    """What starts this batchrunner, wherever it is called from."""
    script = Path(sys.executable).with_name("batchrunner")
    return (str(script),) if os.access(script, os.X_OK) else (sys.executable, "-P", "-m", "batchrunner")


def owner(path: Path) -> str:
    """Whose a file or folder is: a name, or the number where it has none."""
    try:
        return path.owner()
    except KeyError:
        return str(path.stat().st_uid)


def create(path: Path, text: str, mode: int) -> None:
    """Write a file that is not there yet, through no link. Raises OSError."""
    with os.fdopen(
        os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode), "w", encoding="utf-8"
    ) as file:
        file.write(text)


def existing(path: Path) -> Path:
    """The folder itself or the nearest above it that is there: what is not can't be named in ReadWritePaths=."""
    return path if path.exists() or path == path.parent else existing(path.parent)


def checked(text: str) -> str:
    """The text itself. Raises UsageError: no unit can have it."""
    if not text.isprintable():
        raise UsageError(f"{text!r} has characters that can't stand in a systemd unit; rename it")
    return text


def word(text: str) -> str:
    """A word of a command line or list (systemd.syntax(7), Quoting; systemd.unit(5), Specifiers). A `$` means itself
    behind the `:` that the command begins with."""
    escaped = checked(text).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return escaped if _PLAIN.fullmatch(escaped) else f'"{escaped}"'


def path_value(path: Path) -> str:
    """A path that is the whole value of a setting: there are no quotes, and the ends of the line count."""
    text = checked(str(path))
    if text != text.strip() or text.endswith("\\"):
        raise UsageError(f"{text!r} ends with a character that can't end a path in a systemd unit; rename it")
    return text.replace("%", "%%")
