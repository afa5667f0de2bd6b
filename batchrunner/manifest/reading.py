"""Bytes from disk: bounded, regular files only, UTF-8 without control characters, inside the manifest's folder."""

from __future__ import annotations

import codecs
import os
import re
import stat
from pathlib import PurePosixPath

from .findings import Report, Stop, quoted
from .located import Document

MAX_FILE = 32 * 1024 * 1024
"""Bytes of one file (FAILURES.md, Hostile input)."""
MAX_TOTAL = 64 * 1024 * 1024
"""Bytes of a manifest together with everything that it includes."""

_ALLOWED = bytes([0x09, 0x0A, 0x0D, *range(0x20, 0x7F), *range(0x80, 0x100)])
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_REFUSED = re.compile(rb"\xc2[\x80-\x9f]|\xe2\x80[\xa8\xa9]|\xef\xbb\xbf|\xef\xbf[\xbe\xbf]")
"""In UTF-8: C1 controls, the line separators that YAML counts as lines and no editor does, a byte order mark
elsewhere than at the start, and non-characters."""
_CHUNK = 1 << 20


def read_bytes(document: Document, path: str, report: Report, limit: int = MAX_FILE) -> bytes:
    """The whole file.

    Raises:
        Stop: it can't be read, is no regular file, or is longer than `limit` bytes; reported at 1:1.
    """
    try:
        # O_NONBLOCK: opening a pipe must not wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as stream:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return _stop(document, report, "can't read it: it is not a regular file")
            data = stream.read(limit + 1)
    except IsADirectoryError:
        return _stop(document, report, "can't read it: it is a folder")
    except FileNotFoundError:
        return _stop(document, report, "can't read it: there is no such file")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return _stop(document, report, f"can't read it: {reason[:1].lower()}{reason[1:]}")
    if len(data) > limit:
        return _stop(document, report, f"the file is too large: at most {limit // (1024 * 1024)} MiB are read")
    return data


def _stop(document: Document, report: Report, message: str) -> bytes:
    report.error_at(document, 1, 1, message)
    raise Stop


def check_text(document: Document, data: bytes, report: Report) -> None:
    """Refuse what is not UTF-8 text.

    Raises:
        Stop: invalid UTF-8, a control character or a secret; reported with its position.
    """
    for secret in report.secrets:
        if (at := data.find(secret)) >= 0:
            line, column = position_of(data, at)
            message = "the API key stands here; it belongs into the environment, and into no file"
            report.error_at(document, line, column, message)
            raise Stop
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        _refuse(document, data, 0, "UTF-16", report)
    if data.translate(None, _ALLOWED):  # ten times as fast as the search
        for found in _CONTROL.finditer(data):
            _refuse(document, data, found.start(), f"the control character U+{data[found.start()]:04X}", report)
    if data.isascii():
        return
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(data), _CHUNK):
        held = len(decoder.getstate()[0])
        try:
            decoder.decode(data[start : start + _CHUNK], final=start + _CHUNK >= len(data))
        except UnicodeDecodeError as error:
            at = start - held + error.start
            _refuse(document, data, at, f"the byte 0x{data[at]:02X} that is not UTF-8", report)
    for found in _REFUSED.finditer(data):
        if found.start() or found.group() != codecs.BOM_UTF8:
            code = ord(found.group().decode())
            _refuse(document, data, found.start(), f"the invisible character U+{code:04X}", report)


def position_of(data: bytes, at: int) -> tuple[int, int]:
    """Line and column of a byte, 1-based."""
    before = data[:at].decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


def _refuse(document: Document, data: bytes, at: int, what: str, report: Report) -> None:
    line, column = position_of(data, at)
    report.error_at(document, line, column, f"{what} is not allowed; the file must be plain UTF-8 text")
    raise Stop


def inside(root: str, folder: str, name: str) -> tuple[str, str | None]:
    """A file that a manifest names, as a path, and why it is refused, if it is.

    Args:
        root: absolute, resolved folder of the first manifest: nothing outside is read.
        folder: folder of the naming file, relative to `root`, `""` for the root itself.
        name: what the manifest says, `/` between parts.

    Returns:
        the path relative to `root`, normalised, and a reason (None where the file may be read).
    """
    if not name or "\\" in name or "\0" in name:
        return name, f"{quoted(name)} is not a file name: use a path relative to this file, with '/' between its parts"
    if PurePosixPath(name).is_absolute() or re.match(r"[A-Za-z]:", name) or name.startswith("~"):
        return name, f"{quoted(name)} is an absolute path; files are named relative to the file that names them"
    relative = os.path.normpath(os.path.join(folder, name))
    if relative == ".." or relative.startswith("../"):
        return relative, f"{quoted(name)} leads out of the manifest's folder; only files in it and below are read"
    real = os.path.realpath(os.path.join(root, relative))
    if os.path.commonpath([root, real]) != root:
        return relative, f"{quoted(name)} is a link out of the manifest's folder; only files in it and below are read"
    return relative, None
