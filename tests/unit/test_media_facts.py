"""What headers say: against files that FFmpeg and Pillow made, and files that lie."""

from __future__ import annotations

import io
import struct
import wave
from fractions import Fraction
from pathlib import Path

import av
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from batchrunner.core.media import Facts
from batchrunner.providers.media import NotMedia, Truncated, check
from batchrunner.simulator import tiny


def clip(container: str, codec: str, *, fps: int = 8, frames: int = 12, sound: str = "", **options: str) -> bytes:
    """A clip of 64 x 48, made by FFmpeg."""
    out = io.BytesIO()
    with av.open(out, "w", format=container, options=options) as file:
        stream = file.add_stream(codec, rate=fps)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        track = file.add_stream(sound, rate=48_000) if sound else None
        for index in range(frames):
            frame = av.VideoFrame(64, 48, "yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, fps)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
        if isinstance(track, av.AudioStream):
            hum = av.AudioFrame(format="fltp", layout="mono", samples=1024)
            hum.sample_rate = 48_000
            for plane in hum.planes:
                plane.update(bytes(plane.buffer_size))
            file.mux(track.encode(hum))
            file.mux(track.encode(None))
    return out.getvalue()


def sound(container: str, codec: str, seconds: int = 2) -> bytes:
    out = io.BytesIO()
    with av.open(out, "w", format=container) as file:
        stream = file.add_stream(codec, rate=48_000)
        assert isinstance(stream, av.AudioStream)
        stream.layout = "mono"
        layout = stream.codec_context.format.name
        for index in range(seconds * 50):
            frame = av.AudioFrame(format=layout, layout="mono", samples=960)
            frame.sample_rate, frame.pts = 48_000, index * 960
            for plane in frame.planes:
                plane.update(bytes(plane.buffer_size))
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return out.getvalue()


def picture(kind: str, **more: bool) -> bytes:
    out = io.BytesIO()
    Image.radial_gradient("L").resize((40, 30)).convert("RGB").save(out, kind, **more)
    return out.getvalue()


def facts(path: Path, data: bytes, kind: str) -> Facts:
    path.write_bytes(data)
    return check(path, kind).facts


@pytest.mark.parametrize(
    ("data", "codec"),
    [
        (clip("mp4", "libx264"), "h264"),
        (clip("mov", "mpeg4"), "mpeg4"),
        (clip("webm", "libvpx-vp9"), "vp9"),
        (clip("matroska", "libx264"), "h264"),
    ],
)
def test_a_clip(data: bytes, codec: str, tmp_path: Path) -> None:
    found = facts(tmp_path / "f", data, "video")
    assert (found.width, found.height, found.codec, found.audio) == (64, 48, codec, False)
    assert found.duration_s == pytest.approx(1.5, abs=0.15)
    assert found.fps in {8.0, None}


def test_a_clip_with_sound(tmp_path: Path) -> None:
    assert facts(tmp_path / "f", clip("mp4", "libx264", sound="aac"), "video").audio is True
    assert facts(tmp_path / "f", clip("webm", "libvpx", sound="libopus"), "video").audio is True


def test_a_clip_that_is_shown_turned(tmp_path: Path) -> None:
    """A phone's clip: the matrix of its track (ISO/IEC 14496-12, 8.3.2) turns it by a quarter."""
    data = bytearray(clip("mp4", "libx264"))
    at = data.index(b"tkhd") + 4 + 40
    data[at : at + 36] = struct.pack(">9i", 0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000)
    found = facts(tmp_path / "f", bytes(data), "video")
    assert (found.width, found.height) == (48, 64)


@pytest.mark.parametrize(
    ("data", "codec"),
    [
        (picture("PNG"), "png"),
        (picture("JPEG"), "jpeg"),
        (picture("JPEG", progressive=True), "jpeg"),
        (picture("GIF"), "gif"),
        (picture("WEBP"), "webp"),
        (picture("WEBP", lossless=True), "webp"),
        (picture("AVIF"), "av1"),
    ],
)
def test_a_picture(data: bytes, codec: str, tmp_path: Path) -> None:
    assert facts(tmp_path / "f", data, "image") == Facts(width=40, height=30, codec=codec)


@pytest.mark.parametrize(
    ("container", "codec", "named"),
    [("mp3", "libmp3lame", "mp3"), ("flac", "flac", "flac"), ("ogg", "libopus", "opus"), ("wav", "pcm_s16le", "pcm")],
)
def test_a_sound(container: str, codec: str, named: str, tmp_path: Path) -> None:
    found = facts(tmp_path / "f", sound(container, codec), "audio")
    assert found.codec == named
    assert found.duration_s == pytest.approx(2.0, abs=0.1)


def test_a_plain_wave_file(tmp_path: Path) -> None:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(4 * 4000))
    assert facts(tmp_path / "f", out.getvalue(), "audio") == Facts(duration_s=0.5, codec="pcm")


def test_what_has_no_tracks_says_its_length_only(tmp_path: Path) -> None:
    assert facts(tmp_path / "f", tiny.mp4("x", 5), "video") == Facts(duration_s=5.0)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_no_part_of_a_picture_passes(kind: str, tmp_path: Path) -> None:
    """Also one that ends where the thumbnail in it does."""
    data = picture(kind)
    path = tmp_path / "f"
    for end in [*range(1, 64), *range(64, len(data) - 1, max(1, len(data) // 97))]:
        path.write_bytes(data[:end])
        with pytest.raises(NotMedia):
            check(path, "image")


def test_a_jpeg_that_ends_with_its_thumbnail(tmp_path: Path) -> None:
    thumbnail, whole = picture("JPEG"), picture("JPEG")
    held = b"\xff\xe1" + struct.pack(">H", 2 + len(thumbnail)) + thumbnail
    path = tmp_path / "f"
    path.write_bytes(whole[:2] + held + whole[2:])
    assert check(path, "image").facts.width == 40
    path.write_bytes(whole[:2] + held)
    with pytest.raises(Truncated):
        check(path, "image")


FILES = [(clip("mp4", "libx264", frames=2), "video"), (clip("webm", "libvpx", frames=2), "video")]
FILES += [(picture(kind), "image") for kind in ("PNG", "JPEG", "WEBP", "AVIF")]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(FILES), st.lists(st.tuples(st.integers(0, 2000), st.binary(min_size=1, max_size=8)), max_size=6))
def test_headers_that_lie(file: tuple[bytes, str], edits: list[tuple[int, bytes]]) -> None:
    """It says something that makes sense, or nothing, or that the file is not whole; it never breaks."""
    data = bytearray(file[0])
    for at, patch in edits:
        data[at % len(data) : at % len(data) + len(patch)] = patch
    path = Path("/dev/shm" if Path("/dev/shm").is_dir() else "/tmp") / "batchrunner-lying"
    path.write_bytes(data)
    try:
        found = check(path, file[1]).facts
    except NotMedia:
        return
    finally:
        path.unlink()
    assert found.duration_s is None or 0 <= found.duration_s <= 1e6
    assert (found.width is None) == (found.height is None)
    assert found.codec is None or found.codec.isprintable()
