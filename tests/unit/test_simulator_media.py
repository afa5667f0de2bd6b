"""What the simulator serves: real clips, tiny clips, byte ranges."""

from __future__ import annotations

import asyncio
import io
import json
import struct
import subprocess
import sys
import threading
import wave
from typing import Any

import av
import pytest
from PIL import Image

from batchrunner import catalogue
from batchrunner.catalogue import Model
from batchrunner.core.names import parse_names
from batchrunner.simulator import clips, media
from batchrunner.simulator.outputs import Given
from batchrunner.simulator.store import NewTask

PROMPT = "a corgi running on the beach in winter, cinematic"


def task(number: int = 1, label: str = "corgi-beach-1", **fields: Any) -> NewTask:
    request = {"model": "kling-3-0-turbo", "prompt": PROMPT} | fields
    return NewTask(
        number, f"task_{number:032x}", "user", request["model"], label, json.dumps(request), "0" * 64, 630, 0.0, 1.0
    )


def boxes(data: bytes) -> list[str]:
    """The top-level boxes of an MP4, which must end with the data."""
    found, at = [], 0
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        assert size >= 8
        found.append(kind.decode())
        at += size
    assert at == len(data)
    return found


@pytest.mark.parametrize(
    ("fields", "size", "seconds"),
    [
        ({"duration": 3}, (1280, 720), 3),
        ({"duration": 4, "aspect_ratio": "9:16"}, (720, 1280), 4),
        ({"aspect_ratio": "1:1"}, (720, 720), 5),
        ({"duration": 3, "resolution": "1080p"}, (1920, 1080), 3),
    ],
)
def test_a_rendered_clip_plays_to_its_last_frame(fields: dict[str, Any], size: tuple[int, int], seconds: int) -> None:
    data = media.make(task(**fields), "0.mp4", rendered=True)
    assert boxes(data)[0] == "ftyp"
    with av.open(io.BytesIO(data), "r") as container:
        stream = container.streams.video[0]
        assert container.duration == seconds * 1_000_000
        assert stream.duration is not None
        assert stream.time_base is not None
        assert stream.duration * stream.time_base == seconds
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        frames = [frame.reformat(format="gray") for frame in container.decode(video=0)]
    assert len(frames) == seconds * clips.FPS
    assert {(frame.width, frame.height) for frame in frames} == {size}
    assert len({bytes(frame.planes[0]) for frame in frames}) == len(frames), "every frame differs: one sees it play"
    assert len(data) < 150_000


def test_a_clip_is_the_same_every_time_and_no_other_tasks() -> None:
    first, again, other = (media.make(task(n, duration=3), "0.mp4", rendered=True) for n in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    "text", ["", "x" * 3000, "沙滩上的柯基" * 200, "two\nlines and\x1b[31mred\u202e", "word " * 600]
)
def test_any_prompt_and_label_can_be_drawn(text: str) -> None:
    picture = media.make(task(label=text, prompt=text, aspect_ratio="9:16"), "0.png", rendered=True)
    with Image.open(io.BytesIO(picture)) as image:
        image.load()
        assert image.size == (720, 1280)


def test_wrapping_keeps_to_the_width_and_marks_what_is_left_out() -> None:
    font = clips._font(30)
    lines = clips._wrap("word " * 100 + "x" * 400, font, 300, 3)
    assert len(lines) == 3
    assert lines[-1].endswith("…")
    assert all(font.getlength(line) <= 300 for line in lines)
    assert "".join(clips._wrap("x" * 60, font, 300, 9)) == "x" * 60
    assert clips._wrap("short", font, 300, 3) == ["short"]
    assert clips._wrap("place=north_cape+season=winter", font, 300, 3) == ["place=north_cape+", "season=winter"]


def test_long_titles_are_drawn_smaller() -> None:
    wide, narrow = (media.make(task(label="label-" * n), "0.png", rendered=True) for n in (2, 30))
    assert wide != narrow


def test_a_tiny_clip_is_tiny_unique_and_whole() -> None:
    one, two = (media.make(task(n), "0.mp4", rendered=False) for n in (1, 2))
    assert boxes(one) == ["ftyp", "moov", "free", "mdat"]
    assert len(one) < 400
    assert task(1).id.encode() in one
    assert one != two


@pytest.fixture
def other_models(monkeypatch: pytest.MonkeyPatch) -> None:
    names = parse_names({"aspect_ratio": {"set": {"size": "$"}}}, {"resolution": {}})

    def model(name: str, output: str) -> Model:
        return Model(name, "reapi", name, f"/{output}s/generations", output, {}, {"size": "1:1"}, None, names=names)

    monkeypatch.setattr(catalogue, "models", lambda: {"pic": model("pic", "image"), "song": model("song", "audio")})


@pytest.mark.usefixtures("other_models")
def test_pictures_and_sounds() -> None:
    for rendered, size in ((True, (1024, 1024)), (False, (1, 1))):
        data = media.make(task(model="pic", resolution="1k"), "0.png", rendered=rendered)
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            assert image.size == size
        with wave.open(io.BytesIO(media.make(task(model="song"), "0.wav", rendered=rendered))) as sound:
            assert sound.getnframes() == sound.getframerate() == 8000


@pytest.mark.parametrize("sound", [True, False])
def test_a_clip_that_is_ordered_with_sound_has_a_track_as_long_as_it_is(sound: bool) -> None:
    data = media.make(task(model="kling-3-0", sound=sound, duration=3), "0.mp4", rendered=True)
    assert data == media.make(task(model="kling-3-0", sound=sound, duration=3), "0.mp4", rendered=True)
    with av.open(io.BytesIO(data), "r") as container:
        heard = [frame.samples / frame.sample_rate for frame in container.decode(audio=0)] if sound else []
        assert len(container.streams.audio) == sound
        assert round(sum(heard)) == 3 * sound


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({}, (1280, 720)),
        ({"resolution": "480p", "aspect_ratio": "3:2"}, (720, 480)),
        ({"resolution": "4K", "aspect_ratio": "9:16"}, (2160, 3840)),
        ({"resolution": "pro", "aspect_ratio": "21:9"}, (1680, 720)),
        ({"aspect_ratio": "adaptive", "resolution": "720P"}, (1280, 720)),
        ({"aspect_ratio": "0:0"}, (1280, 720)),
    ],
)
def test_sizes(fields: dict[str, Any], size: tuple[int, int]) -> None:
    assert media.picture_size(fields) == size


@pytest.mark.parametrize(("given", "seconds"), [(8, 8), (None, 5), (True, 5), ("7", 5), (0, 5), (9999, 5)])
def test_lengths(given: object, seconds: int) -> None:
    assert media.clip_seconds({"duration": given}) == seconds


@pytest.mark.parametrize(
    ("header", "part"),
    [
        (None, None),
        ("bytes=0-9", (0, 10)),
        ("bytes=90-", (90, 100)),
        ("bytes=90-200", (90, 100)),
        ("bytes=-10", (90, 100)),
        ("bytes=-200", (0, 100)),
        ("bytes=-", None),
        ("bytes=9-1", None),
        ("bytes=0-1,4-5", None),
        ("lines=0-1", None),
    ],
)
def test_byte_ranges(header: str | None, part: tuple[int, int] | None) -> None:
    assert media.byte_range(header, 100) == part


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=100-200", "bytes=-0"])
def test_ranges_beyond_the_file(header: str) -> None:
    with pytest.raises(ValueError, match="satisfiable"):
        media.byte_range(header, 100)


async def test_two_requests_for_one_file_make_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    go = threading.Event()

    def fake(task: NewTask, name: str, given: Given, *, rendered: bool, models: object) -> bytes:
        made.append(task.number)
        go.wait(30)
        return b"x"

    monkeypatch.setattr(media, "make", fake)
    shelf = media.MediaShelf(rendered=True)
    try:
        async with asyncio.TaskGroup() as group:
            one, two = (group.create_task(shelf.file(task(), "0.mp4")) for _ in range(2))
            while not made:
                await asyncio.sleep(0)
            go.set()
    finally:
        shelf.close()
    assert one.result() == two.result()
    assert made == [1]


async def test_the_shelf_makes_a_file_once_and_forgets_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def fake(task: NewTask, name: str, given: Given, *, rendered: bool, models: object) -> bytes:
        made.append(task.number)
        return b"x" * 40

    monkeypatch.setattr(media, "make", fake)
    monkeypatch.setattr(media, "CACHE_BYTES", 100)
    shelf = media.MediaShelf(rendered=True)
    try:
        for number in (1, 1, 2, 1, 3, 1, 2):
            assert len((await shelf.file(task(number), "0.mp4")).data) == 40
    finally:
        shelf.close()
    assert made == [1, 2, 3, 2]


def test_importing_the_simulator_imports_no_encoder() -> None:
    code = "import sys, batchrunner.simulator; print(sorted({'av', 'PIL'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"
