"""Outputs made by hand, of a few hundred bytes: for load tests, and what needs no encoder."""

from __future__ import annotations

import struct
import zlib


def _box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), kind) + body


_MATRIX = struct.pack(">9i", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)


def mp4(text: str, seconds: int) -> bytes:
    """An MP4 (ISO 14496-12) without tracks: ftyp, moov with the duration, free with `text`, mdat.

    Its box tree is consistent to the last byte; a player shows nothing.
    """
    mvhd = struct.pack(">IIIII", 0, 0, 0, 1000, seconds * 1000)  # version and flags, times, timescale, duration
    mvhd += struct.pack(">iH10x", 0x10000, 0x100) + _MATRIX + bytes(24) + struct.pack(">I", 1)
    data = text.encode()
    return b"".join(
        (
            _box(b"ftyp", b"isom", struct.pack(">I", 512), b"isomiso2mp41"),
            _box(b"moov", _box(b"mvhd", mvhd)),
            _box(b"free", data),
            _box(b"mdat", zlib.compress(data)),
        )
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(text: str) -> bytes:
    """A PNG of one grey pixel that carries `text` as its comment."""
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)),
            _chunk(b"tEXt", b"Comment\0" + text.encode("latin-1", "replace")),
            _chunk(b"IDAT", zlib.compress(b"\0\x80")),
            _chunk(b"IEND", b""),
        )
    )


def wav(text: str, seconds: int) -> bytes:
    """A WAV of a quiet 250 Hz square wave, 8 kHz, 8 bit, that carries `text` as its comment."""
    samples = (b"\x78" * 16 + b"\x88" * 16) * (250 * max(1, seconds))
    note = text.encode() + b"\0" * (2 - len(text.encode()) % 2)
    info = b"INFO" + b"ICMT" + struct.pack("<I", len(note)) + note
    body = b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 8000, 1, 8)
    body += b"LIST" + struct.pack("<I", len(info)) + info + b"data" + struct.pack("<I", len(samples)) + samples
    return b"RIFF" + struct.pack("<I", len(body)) + body
