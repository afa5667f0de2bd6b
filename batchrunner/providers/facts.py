"""What a container says of what is in it: length, size of the picture, codec. Headers only; nothing is decoded.

Read after `media.check` has found the file whole. Hostile files reach this too: it reads a bounded number of small
pieces, believes no length, and says None where something makes no sense.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator

from ..core.media import Facts
from . import sound
from .source import Source, unpack

MAX_SECONDS = 1e6
MAX_SIDE = 1 << 20
"""Lengths in seconds and sides in pixels beyond which a header is not believed."""

_CODECS = {
    "avc1": "h264",
    "avc3": "h264",
    "hvc1": "hevc",
    "hev1": "hevc",
    "av01": "av1",
    "vp08": "vp8",
    "vp09": "vp9",
    "mp4v": "mpeg4",
    "mp4a": "aac",
    "V_VP8": "vp8",
    "V_VP9": "vp9",
    "V_AV1": "av1",
    "V_MPEG4/ISO/AVC": "h264",
    "V_MPEGH/ISO/HEVC": "hevc",
}


def read(file: Source, container: str) -> Facts:
    """The facts of a whole file. Raises what `file` raises, and nothing else.

    Args:
        file: see `Source`.
        container: as `media.Media.container` names it.
    """
    reader = _READERS.get(container)
    if reader is None:
        return Facts()
    try:
        found = reader(file)
    except (struct.error, IndexError, ZeroDivisionError, OverflowError, UnicodeDecodeError):
        return Facts()
    return _sane(found)


def _sane(found: Facts) -> Facts:
    seconds, fps = found.duration_s, found.fps
    sides = (found.width or 0, found.height or 0)
    sized = all(0 < side <= MAX_SIDE for side in sides)
    return Facts(
        duration_s=round(seconds, 3) if seconds and math.isfinite(seconds) and 0 < seconds <= MAX_SECONDS else None,
        width=sides[0] if sized else None,
        height=sides[1] if sized else None,
        codec=found.codec,
        fps=round(fps, 3) if fps and math.isfinite(fps) and 0 < fps <= 1000 else None,
        audio=found.audio,
    )


# --- MP4 (ISO/IEC 14496-12) ------------------------------------------------------------------------------


def _boxes(file: Source, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Type, start and end of the body of each box in a row."""
    while end - start >= 8:
        size, kind, header = int.from_bytes(file.at(start, 4), "big"), file.at(start + 4, 4), 8
        if size == 1:
            size, header = int.from_bytes(file.at(start + 8, 8), "big"), 16
        elif size == 0:
            size = end - start
        if not header <= size <= end - start:
            return
        yield kind, start + header, start + size
        start += size


def _inside(file: Source, start: int, end: int, *path: bytes) -> tuple[int, int] | None:
    """The body of the first box on a path of types."""
    for kind in path:
        found = next((box for box in _boxes(file, start, end) if box[0] == kind), None)
        if found is None:
            return None
        start, end = found[1:]
    return start, end


def _mp4(file: Source) -> Facts:
    moov = _inside(file, 0, file.size, b"moov")
    if moov is None:
        return Facts()
    seconds = _length(file, moov)
    picture = Facts()
    sound: str | None = None
    for kind, start, end in _boxes(file, *moov):
        if kind != b"trak":
            continue
        handler = _inside(file, start, end, b"mdia", b"hdlr")
        what = file.at(handler[0] + 8, 4) if handler else b""
        if what == b"vide" and picture.codec is None:
            picture = _picture(file, start, end)
        elif what == b"soun" and sound is None:
            sound = _entry(file, start, end)[0] or "unknown"
    return Facts(
        duration_s=seconds,
        width=picture.width,
        height=picture.height,
        codec=picture.codec or sound,
        fps=picture.fps,
        audio=None if picture.codec is None else sound is not None,
    )


def _length(file: Source, moov: tuple[int, int]) -> float | None:
    """Seconds, by the movie's header; for a fragmented file by its own."""
    mvhd = _inside(file, *moov, b"mvhd")
    if mvhd is None:
        return None
    if file.at(mvhd[0], 1) == b"\1":
        scale, length = unpack(">IQ", file, mvhd[0] + 20)
    else:
        scale, length = unpack(">II", file, mvhd[0] + 12)
    if not length and (mehd := _inside(file, *moov, b"mvex", b"mehd")) is not None:
        (length,) = unpack(">Q" if file.at(mehd[0], 1) == b"\1" else ">I", file, mehd[0] + 4)
    return length / scale if length not in {0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF} else None


def _entry(file: Source, start: int, end: int) -> tuple[str | None, int]:
    """Codec and place of a track's first sample description."""
    stsd = _inside(file, start, end, b"mdia", b"minf", b"stbl", b"stsd")
    if stsd is None or stsd[1] - stsd[0] < 16:
        return None, 0
    return _codec(file.at(stsd[0] + 12, 4).decode("latin-1")), stsd[0] + 8


def _codec(name: str) -> str | None:
    plain = name.strip()
    known = _CODECS.get(plain)
    return known or (plain.lower() if plain.isascii() and plain.isprintable() and plain else None)


def _picture(file: Source, start: int, end: int) -> Facts:
    codec, entry = _entry(file, start, end)
    if codec is None:
        return Facts()
    width, height = unpack(">HH", file, entry + 32)
    tkhd = _inside(file, start, end, b"tkhd")
    if tkhd is not None:
        matrix = tkhd[0] + (52 if file.at(tkhd[0], 1) == b"\1" else 40)
        a, b, _, c, d = unpack(">5i", file, matrix)
        if not a and not d and b and c:
            width, height = height, width  # shown turned by a quarter
    return Facts(width=width, height=height, codec=codec, fps=_fps(file, start, end))


def _fps(file: Source, start: int, end: int) -> float | None:
    mdhd = _inside(file, start, end, b"mdia", b"mdhd")
    stts = _inside(file, start, end, b"mdia", b"minf", b"stbl", b"stts")
    if mdhd is None or stts is None:
        return None
    (scale,) = unpack(">I", file, mdhd[0] + (20 if file.at(mdhd[0], 1) == b"\1" else 12))
    (entries,) = unpack(">I", file, stts[0] + 4)
    if not 0 < entries <= 4096:
        return None
    pairs = struct.unpack(f">{2 * entries}I", file.at(stts[0] + 8, 8 * entries))
    samples = sum(pairs[::2])
    length = sum(n * delta for n, delta in zip(pairs[::2], pairs[1::2], strict=True))
    return samples * scale / length if length else None


def _boxed_picture(file: Source) -> Facts:
    """AVIF, HEIF: the largest of the pictures' sizes (ISO/IEC 23008-12, 6.5.3); the others are tiles and thumbnails."""
    brand = file.at(8, 4)
    codec = "av1" if brand.startswith(b"avi") else "hevc"
    meta = _inside(file, 0, file.size, b"meta")
    found = _inside(file, meta[0] + 4, meta[1], b"iprp", b"ipco") if meta is not None else None
    sizes = (
        [unpack(">II", file, start + 4) for kind, start, _ in _boxes(file, *found) if kind == b"ispe"] if found else []
    )
    width, height = max(sizes, key=lambda s: s[0] * s[1], default=(0, 0))
    return Facts(width=width, height=height, codec=codec)


# --- WebM, Matroska (RFC 9559) ---------------------------------------------------------------------------


def _vint(file: Source, offset: int) -> tuple[int, int, int]:
    """A variable-length integer: with its marker, without it, and its length in bytes."""
    length = 9 - file.at(offset, 1)[0].bit_length()
    if length > 8:
        raise IndexError("no such integer")
    value = int.from_bytes(file.at(offset, length), "big")
    return value, value & ((1 << 7 * length) - 1), length


def _elements(file: Source, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Id, start and end of the content of each element in a row; one of unknown length goes on to the end."""
    while end - start >= 2:
        name, _, n = _vint(file, start)
        _, size, m = _vint(file, start + n)
        body = start + n + m
        stop = end if size == (1 << 7 * m) - 1 else min(end, body + size)
        yield name, body, stop
        if name == 0x1F43B675:  # a cluster: what comes before it says all
            return
        start = stop


def _value(file: Source, body: int, end: int) -> int:
    return int.from_bytes(file.at(body, min(8, end - body)), "big")


def _webm(file: Source) -> Facts:
    segment = next((e for e in _elements(file, 0, file.size) if e[0] == 0x18538067), None)
    if segment is None:
        return Facts()
    seconds: float | None = None
    picture, sound = Facts(), None
    for name, body, end in _elements(file, segment[1], segment[2]):
        if name == 0x1549A966:
            info = {e[0]: e for e in _elements(file, body, end)}
            scale = _value(file, *info[0x2AD7B1][1:]) if 0x2AD7B1 in info else 1_000_000
            if 0x4489 in info:
                data = file.at(info[0x4489][1], info[0x4489][2] - info[0x4489][1])
                seconds = struct.unpack(">d" if len(data) == 8 else ">f", data)[0] * scale / 1e9
        elif name == 0x1654AE6B:
            for track in (e for e in _elements(file, body, end) if e[0] == 0xAE):
                facts, is_sound = _track(file, track[1], track[2])
                if is_sound:
                    sound = sound or facts.codec or "unknown"
                elif picture.codec is None:
                    picture = facts
    return Facts(
        duration_s=seconds,
        width=picture.width,
        height=picture.height,
        codec=picture.codec or sound,
        fps=picture.fps,
        audio=None if picture.codec is None else sound is not None,
    )


def _track(file: Source, start: int, end: int) -> tuple[Facts, bool]:
    """A track's facts, and whether it is sound."""
    found = {e[0]: e[1:] for e in _elements(file, start, end)}
    kind = _value(file, *found[0x83]) if 0x83 in found else 0
    codec = file.at(found[0x86][0], min(64, found[0x86][1] - found[0x86][0])).decode("latin-1") if 0x86 in found else ""
    name = _codec(codec.rstrip("\0"))
    if kind == 2:
        return Facts(codec=name and name.removeprefix("a_")), True
    sides = {e[0]: _value(file, e[1], e[2]) for e in _elements(file, *found[0xE0])} if 0xE0 in found else {}
    frame = _value(file, *found[0x23E383]) if 0x23E383 in found else 0
    return Facts(width=sides.get(0xB0), height=sides.get(0xBA), codec=name, fps=1e9 / frame if frame else None), False


# --- Pictures --------------------------------------------------------------------------------------------


def _png(file: Source) -> Facts:
    width, height = unpack(">II", file, 16)
    return Facts(width=width, height=height, codec="png")


def _gif(file: Source) -> Facts:
    width, height = unpack("<HH", file, 6)
    return Facts(width=width, height=height, codec="gif")


def _jpeg(file: Source) -> Facts:
    """The frame header (ITU-T T.81, B.2.2): any of SOF0 to SOF15 but DHT, JPG and DAC, which share their range."""
    position = 2
    while True:
        mark, kind = file.at(position, 2)
        if mark != 0xFF:
            return Facts()
        if kind == 0xFF:  # a filler
            position += 1
            continue
        if 0xC0 <= kind <= 0xCF and kind not in {0xC4, 0xC8, 0xCC}:
            height, width = unpack(">HH", file, position + 5)
            return Facts(width=width, height=height, codec="jpeg")
        if kind == 0xDA:
            return Facts()
        position += 2 + int.from_bytes(file.at(position + 2, 2), "big")


def _webp(file: Source) -> Facts:
    """Size of the canvas (RFC 9649, 2.5 to 2.7)."""
    kind = file.at(12, 4)
    if kind == b"VP8X":
        data = file.at(24, 6)
        sides = int.from_bytes(data[:3], "little") + 1, int.from_bytes(data[3:], "little") + 1
    elif kind == b"VP8L":
        bits = int.from_bytes(file.at(21, 4), "little")
        sides = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        wide, high = unpack("<HH", file, 26)
        sides = wide & 0x3FFF, high & 0x3FFF
    return Facts(width=sides[0], height=sides[1], codec="webp")


_READERS: dict[str, Callable[[Source], Facts]] = {
    "MP4": _mp4,
    "MOV": _mp4,
    "M4A": _mp4,
    "AVIF": _boxed_picture,
    "HEIF": _boxed_picture,
    "WebM": _webm,
    "Matroska": _webm,
    "PNG": _png,
    "JPEG": _jpeg,
    "GIF": _gif,
    "WebP": _webp,
    "WAV": sound.wav,
    "FLAC": sound.flac,
    "Ogg": sound.ogg,
    "MP3": sound.mp3,
}
