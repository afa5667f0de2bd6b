"""Is this file, to its last byte, the container that it should be? Sizes and structure only; nothing is decoded."""

from __future__ import annotations

import array
import os
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ..core.media import Facts
from . import facts

MAX_BOXES = 200_000
"""Most boxes, chunks or pages that are looked at in one file."""
MAX_DEPTH = 8
_MAX_TABLE = 64 << 20
"""Largest chunk-offset table that is read, in bytes."""


class NotMedia(Exception):
    """The file is no valid file of the expected kind. `code` is a short word for what it is instead."""

    code = "not_media"


class Truncated(NotMedia):
    """The file is of the right kind, but ends too early (or its structure contradicts its length)."""

    code = "truncated"


@dataclass(frozen=True, slots=True)
class Media:
    """What a file is.

    Attributes:
        kind: `video`, `image` or `audio`.
        container: such as `MP4`, for people.
        extension: with its dot, such as `.mp4`.
        facts: what its headers say of what is in it.
    """

    kind: str
    container: str
    extension: str
    facts: Facts = field(default=Facts(), compare=False)


class _File:
    """A file that is read by position; reading behind its end is `Truncated`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.size = os.fstat(descriptor).st_size
        self.looked = 0

    def _read(self, count: int, offset: int) -> bytes:
        return os.pread(self._descriptor, count, offset)

    def at(self, offset: int, count: int) -> bytes:
        self.looked += 1
        if self.looked > MAX_BOXES:
            raise NotMedia("the file has too many parts")
        data = self._read(count, offset) if offset + count <= self.size else b""
        if len(data) != count:
            raise Truncated("the file ends too early")
        return data

    def head(self, count: int) -> bytes:
        return self._read(count, 0)

    def tail(self, count: int) -> bytes:
        return self._read(count, max(0, self.size - count))


class _Held(_File):
    """The same of a file whose bytes are at hand."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)
        self.looked = 0

    def _read(self, count: int, offset: int) -> bytes:
        return self._data[offset : offset + count]


# --- MP4, MOV, M4A, AVIF, HEIC: boxes (ISO/IEC 14496-12, 4.2) ---------------------------------------------

_PARENTS = frozenset({b"moov", b"trak", b"edts", b"mdia", b"minf", b"stbl", b"mvex", b"moof", b"traf", b"mfra"})


def _boxes(file: _File, start: int, end: int, depth: int, seen: set[bytes]) -> None:
    """Walk boxes that must fill start..end exactly; `seen` collects the types at the top."""
    position = start
    while position < end:
        if end - position < 8:
            raise Truncated("the file ends within a box")
        head = file.at(position, 8)
        size, kind, header = int.from_bytes(head[:4], "big"), head[4:8], 8
        if size == 1:
            size, header = int.from_bytes(file.at(position + 8, 8), "big"), 16
        elif size == 0:
            # "To the end of the file": also what a writer leaves behind that died before it had finished, so it
            # is only believed of the last box, and when the index came first.
            if depth or kind != b"mdat" or not seen & {b"moov", b"moof"}:
                raise Truncated("a box has no length: the file was never finished")
            size = end - position
        if size < header or size > end - position:
            raise Truncated("a box is longer than the file")
        if not depth:
            seen.add(kind)
        if kind in _PARENTS and depth < MAX_DEPTH:
            _boxes(file, position + header, position + size, depth + 1, seen)
        elif kind in {b"stco", b"co64"} and depth:
            _offsets(file, position + header, position + size, 4 if kind == b"stco" else 8)
        position += size


def _offsets(file: _File, start: int, end: int, width: int) -> None:
    """The chunk offsets of a track must lie inside the file: an index that came first shows what is missing."""
    if end - start < 8:
        raise Truncated("a table of the file is cut off")
    count = int.from_bytes(file.at(start + 4, 4), "big")
    if count * width > end - start - 8:
        raise Truncated("a table of the file is cut off")
    if not count or count * width > _MAX_TABLE:
        return
    table = array.array("I" if width == 4 else "Q", file.at(start + 8, count * width))
    if sys.byteorder == "little":
        table.byteswap()
    if max(table) >= file.size:
        raise Truncated("the file ends before its last pictures")


def _mp4(file: _File, whole: bool) -> Media:
    seen: set[bytes] = set()
    _boxes(file, 0, file.size, 0, seen)
    brand = file.at(8, 4) if file.size >= 12 else b""
    if brand in {b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1", b"hevc"}:
        if b"meta" not in seen:
            raise Truncated("the picture has no index")
        return Media(
            "image", "AVIF" if brand.startswith(b"avi") else "HEIF", ".avif" if brand[:3] == b"avi" else ".heic"
        )
    index, data = seen & {b"moov", b"moof"}, seen & {b"mdat", b"moof"}
    if not (index or data) or (not whole and not (index and data)):
        raise Truncated("the file has no pictures or no index")
    if brand in {b"M4A ", b"M4B "}:
        return Media("audio", "M4A", ".m4a")
    return Media("video", "MOV", ".mov") if brand == b"qt  " else Media("video", "MP4", ".mp4")


# --- WebM, Matroska: EBML (RFC 8794) ----------------------------------------------------------------------


def _vint(file: _File, offset: int, *, keep_marker: bool) -> tuple[int, int, bool]:
    """A variable-length integer: value, length in bytes, and whether it says "unknown"."""
    first = file.at(offset, 1)[0]
    length = 9 - first.bit_length()
    if length > 8:
        raise Truncated("an element has no valid length")
    value = int.from_bytes(file.at(offset, length), "big")
    rest = value & ((1 << 7 * length) - 1)
    return (value if keep_marker else rest), length, rest == (1 << 7 * length) - 1


def _elements(file: _File, start: int, end: int, depth: int) -> None:
    position = start
    while position < end:
        name, n, _ = _vint(file, position, keep_marker=True)
        size, m, unknown = _vint(file, position + n, keep_marker=False)
        body = position + n + m
        if unknown:
            if name not in {0x18538067, 0x1F43B675}:  # Segment, Cluster: live streams
                raise Truncated("an element has no length")
            if name == 0x18538067 and not depth:
                _elements(file, body, end, 1)
            return
        if size > end - body:
            raise Truncated("an element is longer than the file")
        if name == 0x18538067 and not depth:
            _elements(file, body, body + size, 1)
        position = body + size


def _webm(file: _File, _whole: bool) -> Media:
    _elements(file, 0, file.size, 0)
    head = file.head(64)
    if file.size <= 4 + 1 + 31 or b"\x18\x53\x80\x67" not in file.head(4096):
        raise Truncated("the file has no content")
    return Media("video", "WebM", ".webm") if b"webm" in head else Media("video", "Matroska", ".mkv")


# --- Pictures ---------------------------------------------------------------------------------------------


def _png(file: _File, _whole: bool) -> Media:
    position, drawn = 8, False
    while True:
        head = file.at(position, 8)
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        file.at(position + 8 + length, 4)
        drawn = drawn or kind == b"IDAT"
        if kind == b"IEND":
            if not drawn:
                raise Truncated("the picture is empty")
            if file.at(position + 8 + length, 4) != zlib.crc32(kind + file.at(position + 8, length)).to_bytes(4, "big"):
                raise Truncated("the picture's last part is damaged")
            return Media("image", "PNG", ".png")
        position += 12 + length


def _jpeg(file: _File, _whole: bool) -> Media:
    """Segments up to the picture itself (ITU-T T.81, B.1.1.3), then its end: a thumbnail before it has one too."""
    position, kind = 2, 0
    while kind != 0xDA:
        mark, kind = file.at(position, 2)
        if mark != 0xFF:
            raise Truncated("the picture is damaged")
        position += 1 if kind == 0xFF else 2
        if kind == 0xD9:
            raise Truncated("the picture is empty")
        if kind not in {0x01, 0xFF} and not 0xD0 <= kind <= 0xD8:
            position += int.from_bytes(file.at(position, 2), "big")
    file.at(position, 2)
    if not file.tail(4096).rstrip(b"\0\r\n ").endswith(b"\xff\xd9"):
        raise Truncated("the picture has no end")
    return Media("image", "JPEG", ".jpg")


def _gif(file: _File, _whole: bool) -> Media:
    """Blocks up to the trailer (GIF89a, appendix A): its one byte may stand anywhere in the pictures before."""
    position = 13 + _gif_colours(file.at(10, 1)[0])
    while (kind := file.at(position, 1)) != b"\x3b":
        if kind == b"\x2c":
            position += 11 + _gif_colours(file.at(position + 9, 1)[0])
        elif kind == b"\x21":
            position += 2
        else:
            raise Truncated("the picture is damaged")
        while length := file.at(position, 1)[0]:
            position += 1 + length
        position += 1
    return Media("image", "GIF", ".gif")


def _gif_colours(flags: int) -> int:
    """Length of a colour table in bytes."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


# --- RIFF and sound ---------------------------------------------------------------------------------------


def _riff(file: _File, _whole: bool) -> Media:
    head = file.at(0, 12)
    size = int.from_bytes(head[4:8], "little")
    live = size == 0xFFFFFFFF and head[8:] == b"WAVE"  # written to a pipe: the length was not known
    if not live and size + 8 > file.size:
        raise Truncated("the file is shorter than it says")
    if head[8:] == b"WEBP":
        return Media("image", "WebP", ".webp")
    if head[8:] == b"AVI ":
        return Media("video", "AVI", ".avi")
    if head[8:] == b"WAVE":
        return Media("audio", "WAV", ".wav")
    raise NotMedia("the file is of an unknown kind")


def _ogg(file: _File, _whole: bool) -> Media:
    position = 0
    while position < file.size:
        head = file.at(position, 27)
        if head[:4] != b"OggS":
            raise Truncated("a page of the file is damaged")
        position += 27 + head[26] + sum(file.at(position + 27, head[26]))
    if position != file.size:
        raise Truncated("the file ends within a page")
    return Media("audio", "Ogg", ".ogg")


def _mp3(file: _File, _whole: bool) -> Media:
    if file.size < 128:
        raise Truncated("the file has no content")
    return Media("audio", "MP3", ".mp3")


def _flac(file: _File, _whole: bool) -> Media:
    file.at(0, 42)
    return Media("audio", "FLAC", ".flac")


_KINDS: tuple[tuple[Callable[[bytes], bool], Callable[[_File, bool], Media]], ...] = (
    (lambda h: h[4:8] == b"ftyp", _mp4),
    (lambda h: h[:4] == b"\x1a\x45\xdf\xa3", _webm),
    (lambda h: h[:8] == b"\x89PNG\r\n\x1a\n", _png),
    (lambda h: h[:3] == b"\xff\xd8\xff", _jpeg),
    (lambda h: h[:6] in {b"GIF87a", b"GIF89a"}, _gif),
    (lambda h: h[:4] == b"RIFF", _riff),
    (lambda h: h[:4] == b"OggS", _ogg),
    (lambda h: h[:4] == b"fLaC", _flac),
    (lambda h: h[:3] == b"ID3" or (len(h) > 1 and h[0] == 0xFF and h[1] & 0xE0 == 0xE0), _mp3),
)

_ALSO = {("video", ".gif"), ("video", ".webp"), ("audio", ".mp4"), ("audio", ".webm")}
"""What passes for another kind: an animation (`enable_gif`), sound in a container that is mostly used for film."""


def check(file: Path | bytes, kind: str, *, whole: bool = True) -> Media:
    """What a file is.

    Args:
        file: where it is, and no one is writing to it; or all of its bytes.
        kind: `video`, `image` or `audio`: what was ordered.
        whole: whether the transport vouched for the length (Content-Length or chunks). If not, an MP4 must show
            both an index and content, so that one cut off between two boxes does not pass.

    Returns:
        kind, container, extension, and what the headers say.

    Raises:
        Truncated: it ends too early.
        NotMedia: it is something else (an HTML page, another kind, nothing).
        OSError: it can't be read.
    """
    if isinstance(file, bytes):
        return _check(lambda: _Held(file), kind, whole)
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return _check(lambda: _File(descriptor), kind, whole)
    finally:
        os.close(descriptor)


def _check(opened: Callable[[], _File], kind: str, whole: bool) -> Media:
    file = opened()
    head = file.head(16)
    if not head:
        raise NotMedia("the file is empty")
    parse = next((parse for fits, parse in _KINDS if fits(head)), None)
    if parse is None:
        raise NotMedia(_instead(file.head(512)))
    found = parse(file, whole)
    if found.kind != kind and (kind, found.extension) not in _ALSO:
        raise NotMedia(f"expected {kind}, but a {found.container} file ({found.kind}) came")
    return Media(kind, found.container, found.extension, _facts(opened(), found.container))


def _facts(file: _File, container: str) -> Facts:
    """What a whole file says of itself; a header that lies costs no more than what it would have said."""
    try:
        return facts.read(file, container)
    except NotMedia:
        return Facts()


def _instead(head: bytes) -> str:
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "an HTML page came instead of the file"
    if text.startswith(b"<?xml"):
        return "an XML document came instead of the file"
    if text.startswith((b"{", b"[")):
        return "JSON came instead of the file"
    return "what came is no known kind of media file"
