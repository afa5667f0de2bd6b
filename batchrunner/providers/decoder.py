"""Is a file good to its last picture? Decoded in a process of its own: what a decoder does with a hostile file, it does
there, with bounded time and memory, and without anything worth stealing.

The worker is `python -m batchrunner.providers.decoder CONTAINER KIND` with the file as its standard input.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

MAX_SECONDS = 300
"""Processor and wall time for one file; a minute of 4k takes some 30 s."""
MAX_MEMORY = 4 << 30
"""Bytes of address space; a clip of 8k takes some 2 GiB of it."""
MAX_SAID = 300
"""Characters that are taken over from a decoder's words."""

_FORMATS = {
    "MP4": "mp4",
    "MOV": "mov",
    "M4A": "mp4",
    "AVIF": "mov",
    "HEIF": "mov",
    "WebM": "matroska",
    "Matroska": "matroska",
    "AVI": "avi",
    "PNG": "png_pipe",
    "JPEG": "jpeg_pipe",
    "GIF": "gif",
    "WebP": "webp_pipe",
    "WAV": "wav",
    "MP3": "mp3",
    "Ogg": "ogg",
    "FLAC": "flac",
}
"""FFmpeg's name of each container. It is told, so that no file is taken for a playlist that names others."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """What came of decoding a file.

    Attributes:
        frames: pictures (of sound: packets of samples) that were decoded; None where none could be.
        broken: why not all were; None where it is good to its end.
        told: whether it says anything of the file; False where the decoder is missing or can't read such files.
    """

    frames: int | None
    broken: str | None
    told: bool = True


def decode(path: Path, container: str, kind: str) -> Decoded:
    """Decode a file to its end. Blocks, at most some `MAX_SECONDS`.

    Args:
        path: a file that `media.check` has found whole.
        container: as `media.Media.container` names it.
        kind: `video`, `image` or `audio`.

    Raises:
        OSError: the file can't be opened, or no process can be started.
    """
    if container not in _FORMATS:
        return Decoded(None, f"{container} files can't be decoded here", told=False)
    home = str(Path(__file__).resolve().parents[2])
    command = [sys.executable, "-P", "-m", "batchrunner.providers.decoder", container, kind]
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        ran = subprocess.run(  # noqa: S603  our own module
            command,
            stdin=descriptor,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PYTHONPATH": home, "PATH": os.defpath},
            timeout=MAX_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Decoded(None, f"decoding took longer than {MAX_SECONDS} s")
    finally:
        os.close(descriptor)
    try:
        said = json.loads(ran.stdout)
        return Decoded(said["frames"], said["broken"], said["told"])
    except (ValueError, KeyError, TypeError):
        return Decoded(None, f"the decoder died over it ({_ending(ran.returncode)})")


def _ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


# --- The worker ------------------------------------------------------------------------------------------


def _work(container: str, kind: str, file: IO[bytes]) -> dict[str, Any]:
    try:
        import av
    except ImportError:
        return {"frames": None, "broken": "PyAV is not installed: pip install av", "told": False}
    frames = 0
    try:
        with av.open(file, "r", format=_FORMATS[container], metadata_errors="ignore") as opened:
            stream = next((s for s in opened.streams if s.type == ("audio" if kind == "audio" else "video")), None)
            if stream is None:
                return {"frames": 0, "broken": "there is no such track in it", "told": True}
            stream.codec_context.options = {"err_detect": "explode"}
            stream.codec_context.thread_count = 1
            expected = stream.frames if kind == "video" else 0
            for frame in opened.decode(stream):
                if getattr(frame, "is_corrupt", False):
                    return _ended(frames, expected, "the next is damaged")
                frames += 1
    except (av.FFmpegError, ValueError, MemoryError) as error:
        return _ended(frames, 0, str(error)[:MAX_SAID])
    if frames < max(1, expected):
        return _ended(frames, expected, "the file ends there")
    return {"frames": frames, "broken": None, "told": True}


def _ended(frames: int, expected: int, why: str) -> dict[str, Any]:
    of = f" of {expected}" if expected else ""
    return {"frames": frames, "broken": f"after {frames}{of} pictures: {why}", "told": True}


def main() -> None:
    for what, most in (
        (resource.RLIMIT_CPU, MAX_SECONDS),
        (resource.RLIMIT_AS, MAX_MEMORY),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(what)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))
    with open(sys.stdin.fileno(), "rb", closefd=False) as file:
        said = _work(sys.argv[1], sys.argv[2], file)
    sys.stdout.write(json.dumps(said))


if __name__ == "__main__":
    main()
