"""What the headers of sound files say: length and codec. See `facts`."""

from __future__ import annotations

from ..core.media import Facts
from .source import Source, unpack

_WAVE = {1: "pcm", 3: "pcm", 6: "alaw", 7: "mulaw", 0x55: "mp3", 0xFFFE: "pcm"}


def wav(file: Source) -> Facts:
    position, rate, codec = 12, 0, None
    while position + 8 <= file.size:
        kind, size = file.at(position, 4), int.from_bytes(file.at(position + 4, 4), "little")
        if kind == b"fmt ":
            form, _, _, rate = unpack("<HHII", file, position + 8)
            codec = _WAVE.get(form, f"wave_{form:x}")
        elif kind == b"data":
            size = min(size, file.size - position - 8)
            return Facts(duration_s=size / rate if rate else None, codec=codec)
        position += 8 + size + size % 2
    return Facts(codec=codec)


def flac(file: Source) -> Facts:
    """The stream's description (RFC 9639, 8.2): 20 bits of rate, 3 and 5 of others, 36 of samples."""
    bits = int.from_bytes(file.at(18, 8), "big")
    rate, samples = bits >> 44, bits & (1 << 36) - 1
    return Facts(duration_s=samples / rate if rate else None, codec="flac")


def ogg(file: Source) -> Facts:
    """The last page's position over the rate: always 48 kHz for Opus (RFC 7845, 4)."""
    head = file.at(0, min(file.size, 128))
    body = head[27 + head[26] :]
    if body.startswith(b"OpusHead"):
        codec, rate, skipped = "opus", 48_000, int.from_bytes(body[10:12], "little")
    elif body.startswith(b"\1vorbis"):
        codec, rate, skipped = "vorbis", int.from_bytes(body[12:16], "little"), 0
    else:
        return Facts()
    count = min(file.size, 1 << 17)
    tail = file.at(file.size - count, count)
    last = tail.rfind(b"OggS")
    position = int.from_bytes(tail[last + 6 : last + 14], "little") if last >= 0 else 0
    return Facts(duration_s=(position - skipped) / rate if rate else None, codec=codec)


_KBIT = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0)
_KBIT_LOW = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0)
_RATES = (44_100, 48_000, 32_000, 0)


def mp3(file: Source) -> Facts:
    """By the count of frames in a Xing or Info header where there is one, else by the first frame's rate."""
    start = 0
    if file.at(0, 3) == b"ID3":
        size = file.at(6, 4)
        start = 10 + (size[0] << 21 | size[1] << 14 | size[2] << 7 | size[3])
    if start + 4 > file.size:
        return Facts(codec="mp3")
    head = int.from_bytes(file.at(start, 4), "big")
    version, layer = head >> 19 & 3, head >> 17 & 3
    if head >> 21 != 0x7FF or layer != 1 or version == 1:
        return Facts(codec="mp3")
    low = version != 3
    rate = _RATES[head >> 10 & 3] >> (0 if version == 3 else 1 if version == 2 else 2)
    kbit = (_KBIT_LOW if low else _KBIT)[head >> 12 & 15]
    mono = head >> 6 & 3 == 3
    xing = start + 4 + ((9 if mono else 17) if low else (17 if mono else 32))
    samples = 576 if low else 1152
    if xing + 12 <= file.size and file.at(xing, 4) in {b"Xing", b"Info"}:
        flags, frames = unpack(">II", file, xing + 4)
        if flags & 1 and rate:
            return Facts(duration_s=frames * samples / rate, codec="mp3")
    return Facts(duration_s=(file.size - start) / (kbit * 125) if kbit else None, codec="mp3")
