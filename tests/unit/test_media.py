"""Containers: real files pass, every prefix of them fails, and nothing else gets through."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import tempfile
import wave
import zlib
from fractions import Fraction
from pathlib import Path

import av
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from batchrunner.providers import media
from batchrunner.providers.media import Media, NotMedia, Truncated, check


def box(kind: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I4s", 8 + len(body), kind) + body


FTYP = box(b"ftyp", b"isom\0\0\2\0isomiso2")
MOOV = box(b"moov", box(b"mvhd", bytes(100)) + box(b"trak", box(b"tkhd", bytes(84)) + box(b"mdia", box(b"minf"))))
MDAT = box(b"mdat", b"x" * 40)


def large(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4sQ", 1, kind, 16 + len(body)) + body


def table(*offsets: int, wide: bool = False) -> bytes:
    """A moov whose only track has chunks at these offsets."""
    entries = b"".join(struct.pack(">Q" if wide else ">I", o) for o in offsets)
    stco = box(b"co64" if wide else b"stco", bytes(4) + struct.pack(">I", len(offsets)) + entries)
    return box(b"moov", box(b"trak", box(b"mdia", box(b"minf", box(b"stbl", stco)))))


def film(container: str, options: dict[str, str] | None = None, codec: str = "mpeg4") -> bytes:
    """A real clip of a few frames, made by FFmpeg."""
    # A named file: "faststart" reads back what it has written.
    with (
        tempfile.NamedTemporaryFile() as out,
        av.open(out.name, "w", format=container, options=options or {}) as file,
    ):
        stream = file.add_stream(codec, rate=Fraction(5))
        assert isinstance(stream, av.VideoStream)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for _ in range(3):
            file.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        file.mux(stream.encode(None))
        file.close()
        return Path(out.name).read_bytes()


def picture(kind: str) -> bytes:
    out = io.BytesIO()
    Image.radial_gradient("L").resize((24, 24)).convert("RGB").save(out, kind)
    return out.getvalue()


def sound() -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(200))
    return out.getvalue()


def ogg_page(body: bytes) -> bytes:
    return b"OggS" + bytes(22) + b"\1" + bytes([len(body)]) + body


WHOLE: dict[str, tuple[bytes, Media]] = {
    "mp4, moov last": (FTYP + box(b"free") + MDAT + MOOV, Media("video", "MP4", ".mp4")),
    "mp4, moov first": (FTYP + table(300) + box(b"mdat", bytes(400)), Media("video", "MP4", ".mp4")),
    "mp4, 64-bit offsets": (FTYP + table(300, wide=True) + box(b"mdat", bytes(400)), Media("video", "MP4", ".mp4")),
    "mp4, 64-bit size": (FTYP + large(b"mdat", bytes(40)) + MOOV, Media("video", "MP4", ".mp4")),
    "mp4, unknown boxes": (FTYP + box(b"zzzz", b"?") + MOOV + MDAT, Media("video", "MP4", ".mp4")),
    "mp4, ffmpeg": (film("mp4"), Media("video", "MP4", ".mp4")),
    "mp4, ffmpeg, fast start": (film("mp4", {"movflags": "faststart"}), Media("video", "MP4", ".mp4")),
    "mov, ffmpeg": (film("mov"), Media("video", "MOV", ".mov")),
    "png": (picture("PNG"), Media("image", "PNG", ".png")),
    "jpeg": (picture("JPEG"), Media("image", "JPEG", ".jpg")),
    "webp": (picture("WEBP"), Media("image", "WebP", ".webp")),
    "gif": (picture("GIF"), Media("image", "GIF", ".gif")),
    "wav": (sound(), Media("audio", "WAV", ".wav")),
    "ogg": (ogg_page(b"one") + ogg_page(b"two"), Media("audio", "Ogg", ".ogg")),
}
CUTTABLE = {name: data for name, (data, _) in WHOLE.items() if name != "ogg"}
OTHERS: dict[str, tuple[bytes, Media]] = {
    "mp4, fragmented": (
        film("mp4", {"movflags": "frag_keyframe+empty_moov+default_base_moof"}),
        Media("video", "MP4", ".mp4"),
    ),
    "mp4, mdat to the end": (FTYP + MOOV + struct.pack(">I4s", 0, b"mdat") + b"x" * 9, Media("video", "MP4", ".mp4")),
    "webm, ffmpeg": (film("webm", codec="libvpx"), Media("video", "WebM", ".webm")),
    "webm, live": (film("webm", {"live": "1"}, codec="libvpx"), Media("video", "WebM", ".webm")),
    "mkv": (film("matroska"), Media("video", "Matroska", ".mkv")),
    "m4a": (box(b"ftyp", b"M4A \0\0\0\0") + MOOV + MDAT, Media("audio", "M4A", ".m4a")),
    "avif": (box(b"ftyp", b"avif\0\0\0\0") + box(b"meta", bytes(9)) + MDAT, Media("image", "AVIF", ".avif")),
    "heic": (box(b"ftyp", b"heic\0\0\0\0") + box(b"meta", bytes(9)) + MDAT, Media("image", "HEIF", ".heic")),
    "mp3, tagged": (b"ID3" + bytes(200), Media("audio", "MP3", ".mp3")),
    "mp3": (b"\xff\xfb\x90" + bytes(200), Media("audio", "MP3", ".mp3")),
    "flac": (b"fLaC" + bytes(60), Media("audio", "FLAC", ".flac")),
    "wav from a pipe": (b"RIFF\xff\xff\xff\xffWAVE" + bytes(9), Media("audio", "WAV", ".wav")),
    "avi": (b"RIFF\x0c\0\0\0AVI " + bytes(9), Media("video", "AVI", ".avi")),
    "png with a tail": (picture("PNG") + b"tail", Media("image", "PNG", ".png")),
    "jpeg, padded": (picture("JPEG") + bytes(7), Media("image", "JPEG", ".jpg")),
}


def write(folder: Path, data: bytes) -> Path:
    path = folder / "file.part"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", [*WHOLE, *OTHERS])
@pytest.mark.parametrize("whole", [True, False])
def test_a_whole_file(tmp_path: Path, name: str, whole: bool) -> None:
    data, expected = {**WHOLE, **OTHERS}[name]
    assert check(write(tmp_path, data), expected.kind, whole=whole) == expected


@pytest.mark.parametrize("name", CUTTABLE)
def test_no_prefix_of_it_passes(tmp_path: Path, name: str) -> None:
    data, expected = WHOLE[name]
    path = write(tmp_path, data)
    for size in range(len(data) - 1, -1, -1):
        os.truncate(path, size)
        with pytest.raises(NotMedia):
            check(path, expected.kind, whole=False)


@pytest.mark.parametrize("name", CUTTABLE)
def test_where_the_length_was_vouched_for_only_a_cut_between_boxes_is_left_to_that(tmp_path: Path, name: str) -> None:
    data, expected = WHOLE[name]
    path = write(tmp_path, data)
    edges = set()
    if expected.extension in {".mp4", ".mov"}:
        position = 0
        while position < len(data):
            edges.add(position)
            short = struct.unpack_from(">I", data, position)[0]
            position += short if short != 1 else struct.unpack_from(">Q", data, position + 8)[0]
    for size in range(len(data) - 1, -1, -1):
        if size in edges:
            continue
        os.truncate(path, size)
        with pytest.raises(NotMedia):
            check(path, expected.kind)


def test_an_index_shows_what_is_missing_even_at_a_boxs_edge(tmp_path: Path) -> None:
    data = FTYP + table(300) + box(b"mdat", bytes(400))
    with pytest.raises(Truncated, match="last pictures"):
        check(write(tmp_path, data[: len(FTYP + table(300))]), "video")
    fast = film("mp4", {"movflags": "faststart"})
    with pytest.raises(Truncated):
        check(write(tmp_path, fast[: fast.index(b"mdat") - 4]), "video")


@pytest.mark.parametrize(
    "data",
    [FTYP + MDAT, FTYP + box(b"free") + MOOV, FTYP + MOOV],
    ids=["no moov", "no mdat", "moov only"],
)
def test_a_stub_passes_only_where_the_length_was_vouched_for(tmp_path: Path, data: bytes) -> None:
    path = write(tmp_path, data)
    assert check(path, "video").extension == ".mp4"
    with pytest.raises(Truncated):
        check(path, "video", whole=False)


BROKEN_MP4: dict[str, bytes] = {
    "ftyp only": FTYP,
    "ftyp and free": FTYP + box(b"free"),
    "a tail": FTYP + MOOV + MDAT + b"tail",
    "seven bytes more": FTYP + MOOV + MDAT + bytes(7),
    "zeros behind": FTYP + MOOV + MDAT + bytes(8),
    "a box of 7": FTYP + MOOV + struct.pack(">I4s", 7, b"mdat"),
    "a box too long": FTYP + MOOV + struct.pack(">I4s", 100, b"mdat") + b"x",
    "64-bit size too small": FTYP + MOOV + struct.pack(">I4sQ", 1, b"mdat", 15),
    "64-bit size huge": FTYP + MOOV + struct.pack(">I4sQ", 1, b"mdat", 2**64 - 1),
    "64-bit size cut": FTYP + MOOV + struct.pack(">I4s", 1, b"mdat"),
    "a child too long": FTYP + box(b"moov", struct.pack(">I4s", 99, b"trak")) + MDAT,
    "a child too short": FTYP + box(b"moov", struct.pack(">I4s", 4, b"trak")) + MDAT,
    "a child with a tail": FTYP + box(b"moov", box(b"trak") + b"xxx") + MDAT,
    "a child to the end": FTYP + box(b"moov", struct.pack(">I4s", 0, b"mdat")) + MDAT,
    "a writer that died": FTYP + box(b"free") + struct.pack(">I4s", 0, b"mdat") + b"x" * 99,
    "moov to the end": FTYP + MDAT + struct.pack(">I4s", 0, b"moov"),
    "a table cut": FTYP + box(b"moov", box(b"stco", bytes(7))) + MDAT,
    "a table that lies": FTYP + box(b"moov", box(b"stco", bytes(4) + b"\xff\xff\xff\xff")) + MDAT,
    "offsets behind the end": FTYP + table(10**6) + MDAT,
    "too many boxes": FTYP + box(b"free") * media.MAX_BOXES + MOOV + MDAT,
}


@pytest.mark.parametrize("name", BROKEN_MP4)
def test_a_broken_mp4(tmp_path: Path, name: str) -> None:
    with pytest.raises(NotMedia):
        check(write(tmp_path, BROKEN_MP4[name]), "video")


def test_a_tower_of_boxes(tmp_path: Path) -> None:
    tower = b""
    for _ in range(5000):
        tower = box(b"moov", tower)
    assert check(write(tmp_path, FTYP + tower + MDAT), "video").extension == ".mp4"


def test_an_empty_table_is_fine(tmp_path: Path) -> None:
    assert check(write(tmp_path, FTYP + table() + MDAT), "video").extension == ".mp4"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><p>", "HTML"),
        (b"\n <HTML>", "HTML"),
        (b"<?xml version='1.0'?><Error>AccessDenied", "XML"),
        (b'{"error": {}}', "JSON"),
        (b"hello, world", "no known kind"),
        (bytes(100), "no known kind"),
        (b"RIFF\4\0\0\0ABCD", "unknown kind"),
        (b"\x1a\x45\xdf\xa3", "ends too early"),
        (b"\x1a\x45\xdf\xa3\x80" + b"\xec\x80" * 30, "no content"),
        (b"\x1a\x45\xdf\xa3\x80\x00", "no valid length"),
        (b"\x1a\x45\xdf\xa3\xff", "no length"),
        (b"OggS" + bytes(22) + b"\1\3one" + b"nope" * 9, "damaged"),
        (b"OggS" + bytes(22) + b"\1\5one", "within a page"),
        (b"ID3", "no content"),
        (b"fLaC", "too early"),
        (box(b"ftyp", b"avif\0\0\0\0") + MDAT, "no index"),
    ],
)
def test_what_is_no_media(tmp_path: Path, data: bytes, words: str) -> None:
    with pytest.raises(NotMedia, match=words):
        check(write(tmp_path, data), "video")


def test_a_damaged_end_of_a_png(tmp_path: Path) -> None:
    with pytest.raises(Truncated):
        check(write(tmp_path, picture("PNG")[:-1] + b"x"), "image")
    assert zlib.crc32(b"IEND").to_bytes(4, "big") == picture("PNG")[-4:]


@pytest.mark.parametrize(
    ("name", "kind"), [("png", "video"), ("wav", "video"), ("mp4, moov last", "image"), ("png", "audio")]
)
def test_another_kind_than_was_ordered(tmp_path: Path, name: str, kind: str) -> None:
    with pytest.raises(NotMedia, match=f"expected {kind}"):
        check(write(tmp_path, WHOLE[name][0]), kind)


@pytest.mark.parametrize(("name", "kind"), [("gif", "video"), ("webp", "video"), ("mp4, moov last", "audio")])
def test_what_passes_for_another_kind(tmp_path: Path, name: str, kind: str) -> None:
    assert check(write(tmp_path, WHOLE[name][0]), kind).kind == kind


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    path = write(tmp_path, WHOLE["png"][0])
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(OSError, match="symbolic"):
        check(tmp_path / "link", "image")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([d for d, _ in [*WHOLE.values(), *OTHERS.values()]]),
    st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=5),
    st.sampled_from(["video", "image", "audio"]),
)
def test_damage_never_does_more_than_fail(
    tmp_path: Path, data: bytes, damage: list[tuple[int, int]], kind: str
) -> None:
    broken = bytearray(data)
    for position, value in damage:
        broken[position % len(broken)] = value
    with contextlib.suppress(NotMedia):
        assert check(write(tmp_path, bytes(broken)), kind).kind == kind
