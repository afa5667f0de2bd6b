"""Where the outputs are, as a page beside them names them."""

from __future__ import annotations

import base64
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from ..core.places import is_url

KINDS = {
    "video": (".mp4", ".m4v", ".mov", ".webm", ".ogv"),
    "image": (".png", ".jpg", ".jpeg", ".gif", ".webp", ".avif"),
    "audio": (".wav", ".mp3", ".m4a", ".ogg", ".oga", ".flac", ".aac"),
}
"""What a page can show, by the file's extension."""

TYPES = {
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
    ".mov": "video/mp4",  # a browser that is told video/quicktime does not try
    ".webm": "video/webm",
    ".ogv": "video/ogg",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
    ".avif": "image/avif",
    ".wav": "audio/wav",
    ".mp3": "audio/mpeg",
    ".m4a": "audio/mp4",
    ".ogg": "audio/ogg",
    ".oga": "audio/ogg",
    ".flac": "audio/flac",
    ".aac": "audio/aac",
}

PIECE = 3 << 18
"""Bytes that are read at once to be embedded; a multiple of 3, so that base64 can be put together from pieces."""


@dataclass(frozen=True, slots=True)
class Clip:
    """A finished output, as it is on the disk now.

    Attributes:
        path: absolute.
        url: relative to the page's folder, percent-encoded; of an output in object storage its own.
        kind: `video`, `image`, `audio`, or `file` for what no browser shows.
        size: bytes; None where there is no such file.
        role: `last_frame` of a clip's last frame; empty of an output proper.
        problem: why it can't be shown: it is missing, or not the file that was stored. Empty where it can.
    """

    path: Path
    url: str
    kind: str
    size: int | None
    role: str = ""
    problem: str = ""

    @property
    def type(self) -> str:
        """Its media type, for a `Blob`."""
        return TYPES.get(self.path.suffix.lower(), "application/octet-stream")


def find(path: str, size: int, folder: Path, role: str = "") -> Clip:
    """Look at an output.

    Args:
        path: absolute, as the ledger has it.
        size: bytes that it had when it was stored.
        folder: absolute; where the page will be.
        role: see `Clip.role`.
    """
    if is_url(path):  # no page can play it, and a signed URL would outlive the page's readers; nothing is asked
        return Clip(Path(path), quote(path, safe="/:"), "file", size, role)
    kind = next((k for k, endings in KINDS.items() if path.lower().endswith(endings)), "file")
    url = _url(path, folder)
    try:
        found = os.lstat(path)
    except (OSError, ValueError):
        return Clip(Path(path), url, kind, None, role, "The file is missing")
    if not stat.S_ISREG(found.st_mode):
        return Clip(Path(path), url, kind, None, role, "There is something else in the file's place")
    if found.st_size != size:
        return Clip(Path(path), url, kind, found.st_size, role, "The file has changed since it was stored")
    return Clip(Path(path), url, kind, found.st_size, role)


def _url(path: str, folder: Path) -> str:
    """Every part is quoted whole, so that none is a scheme, a query or a fragment."""
    parts = os.path.relpath(path, folder).split(os.sep)
    return "/".join(quote(os.fsencode(part), safe="") for part in parts)


def base64_pieces(clip: Clip) -> Iterator[str]:
    """The file as base64, in pieces.

    Raises:
        OSError: it can't be read, or is a symlink by now.
    """
    descriptor = os.open(clip.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        while piece := file.read(PIECE):
            yield base64.b64encode(piece).decode("ascii")
