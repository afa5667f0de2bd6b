"""Small still pictures of clips, made with PyAV. Without it, and of what can't be decoded, there is none."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

LARGEST = 8192 * 4608
"""Pixels of the largest picture that is decoded."""

PACKETS = 200
"""Packets after which a file that has shown no picture is given up."""

QUALITY = 60
"""Of WebP, 0 to 100: a poster of 320 pixels takes 2 to 8 kB."""


def width_for(clips: int) -> int:
    """Pixels across for so many posters, so that the page stays below some 15 MB."""
    return 320 if clips <= 500 else 256 if clips <= 2000 else 208


def make(paths: Iterable[Path], width: int) -> Iterator[str | None]:
    """A poster for each file, as base64 of WebP, in order; None where none can be made.

    Args:
        paths: files.
        width: pixels across; a picture that is higher than wide is as high.
    """
    if not available():
        for _ in paths:
            yield None
        return
    pool = ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1), thread_name_prefix="poster")
    try:
        for picture in pool.map(lambda path: poster(path, width), paths):
            yield None if picture is None else base64.b64encode(picture).decode("ascii")
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for thousands


def available() -> bool:
    """Whether what it takes is installed."""
    try:
        import av
        import PIL  # noqa: F401
    except ImportError:
        return False
    av.logging.set_level(av.logging.PANIC)  # FFmpeg's own words on stderr
    return True


def poster(path: Path, width: int) -> bytes | None:
    """One poster, as WebP; None where none can be made. Arguments as of `make`. Takes some 10 ms."""
    if not available():
        return None
    import av

    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                return None
            return _first_picture(container, width)
    except Exception:  # noqa: BLE001  whatever a damaged file makes a decoder do, the page is written
        return None


def _first_picture(container: av.container.InputContainer, width: int) -> bytes | None:  # type: ignore[name-defined]  # noqa: F821
    """The picture a third of the way in, or the nearest before it from which can be decoded: many clips begin dark."""
    stream = container.streams.video[0]
    size = stream.codec_context.width * stream.codec_context.height
    if not 0 < size <= LARGEST:
        return None
    stream.codec_context.thread_count = 1  # files are decoded side by side
    if container.duration:
        container.seek(container.duration // 3, backward=True)
    for number, packet in enumerate(container.demux(stream)):
        for frame in packet.decode():
            return _webp(frame, width)
        if number > PACKETS:
            break
    return None


def _webp(frame: av.VideoFrame, width: int) -> bytes:  # type: ignore[name-defined]  # noqa: F821
    scale = width / max(frame.width, frame.height)
    small = frame.reformat(
        width=max(2, round(frame.width * scale)), height=max(2, round(frame.height * scale)), format="rgb24"
    )
    out = io.BytesIO()
    small.to_image().save(out, "WEBP", quality=QUALITY, method=3)
    return out.getvalue()
