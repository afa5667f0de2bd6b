"""What was ordered against what came; what the files of a task are called."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from batchrunner.catalogue import models
from batchrunner.core.job import Downloading, Job, Output
from batchrunner.core.media import Facts, Kept, Ordered, differences, judged, ordered, warnings_of
from batchrunner.engine import outputs

CLIP = Facts(duration_s=5.04, width=1280, height=720, codec="h264", audio=False)
ORDER = {"duration": 5, "resolution": "720p", "aspect_ratio": "16:9"}


@pytest.mark.parametrize(
    ("request_", "facts", "words"),
    [
        ({}, {}, []),
        ({}, {"duration_s": 5.5}, []),
        ({}, {"duration_s": 4.4}, ["5 s were ordered, 4.4 s came"]),
        ({}, {"duration_s": 10.0}, ["5 s were ordered, 10 s came"]),
        ({}, {"duration_s": None, "width": None, "height": None}, []),
        ({}, {"width": 1284, "height": 716}, []),
        ({}, {"width": 640, "height": 360}, ["720 pixels on the short side were ordered, 640x360 came"]),
        ({}, {"width": 1920, "height": 1080}, ["720 pixels on the short side were ordered, the larger 1920x1080 came"]),
        ({}, {"width": 720, "height": 1280}, ["the ratio 16:9 was ordered, 720x1280 came"]),
        ({"aspect_ratio": "1:1"}, {"width": 720, "height": 720}, []),
        ({"aspect_ratio": "1:1"}, {"width": 960, "height": 960}, []),
        ({"aspect_ratio": "21:9"}, {"width": 1466, "height": 628}, []),
        (
            {"aspect_ratio": "21:9"},
            {"width": 1400, "height": 600},
            ["720 pixels on the short side were ordered, 1400x600 came"],
        ),
        ({"resolution": "480p"}, {"width": 832, "height": 480}, []),
        ({"resolution": "1080P"}, {"width": 1920, "height": 1080}, []),
        ({"first_frame_image": "https://x.test/a.png"}, {"width": 720, "height": 1280}, []),
        ({"return_last_frame": True}, {"width": 720, "height": 1280}, ["the ratio 16:9 was ordered, 720x1280 came"]),
        ({}, {"width": 1280, "height": None}, []),
        ({"aspect_ratio": "0:9"}, {"width": 720, "height": 1280}, []),
        ({"aspect_ratio": "16:0"}, {"width": 720, "height": 1280}, []),
        ({"sound": True}, {}, ["sound was ordered, and there is none"]),
        ({"sound": True}, {"audio": True}, []),
        ({"sound": False}, {}, []),
        ({"duration": "5s"}, {"duration_s": 3.0}, ["5 s were ordered, 3 s came"]),
        ({"duration": True, "resolution": "best", "aspect_ratio": "adaptive"}, {"duration_s": 60.0}, []),
        ({}, {"broken": "after 3 pictures: x"}, ["it can't be decoded to its end: after 3 pictures: x"]),
    ],
)
def test_differences(request_: dict[str, Any], facts: dict[str, Any], words: list[str]) -> None:
    order = ordered("video", {**ORDER, **request_})
    assert list(differences(order, replace(CLIP, **facts), "video")) == words


def test_a_models_own_names_of_sizes() -> None:
    model = models()["kling-3-0"]
    assert outputs.ordered(model, {"model": model.name, "prompt": "x", "mode": "std"}).short_side == 720
    assert outputs.ordered(model, {"model": model.name, "prompt": "x"}).short_side == 1080, "by its default, pro"
    assert ordered("image", {"resolution": "4k"}).short_side is None, "of a picture 4k says no such thing"


def test_an_extra_of_another_kind_was_not_ordered() -> None:
    assert differences(ordered("video", ORDER), Facts(width=1, height=1), "image") == ()


def test_fewer_than_ordered() -> None:
    file = Output("/f", "aa", 1)
    kept = [Kept(1, "image", "u", file), Kept(2, "image", "v", file), Kept(0, "image", "w", None, warnings=("gone",))]
    assert warnings_of(judged(Ordered("image", outputs=2), kept)) == ["last frame: gone"]
    assert warnings_of(judged(Ordered("image", outputs=4), kept)) == [
        "4 outputs were ordered, 2 came",
        "last frame: gone",
    ]


def test_a_word_about_the_number_stands_beside_the_others() -> None:
    file = Output("/f", "aa", 1)
    kept = [Kept(n, "image", "u", file, warnings=(f"word {n}",)) for n in (1, 2, 3)]
    assert warnings_of(judged(Ordered("image", outputs=4), kept)) == [
        "word 1",
        "4 outputs were ordered, 3 came",
        "output 2: word 2",
        "output 3: word 3",
    ]


# --- Names -----------------------------------------------------------------------------------------------


def job(output: str = "dog-1", *, named: bool = False, **fact: Any) -> Job:
    fact = {"urls": ("u1",), **fact}
    return Job(1, 1, "dog-1", "reapi", "m", {}, 1, output, named, Downloading(1, "task_0123456789abcdef", **fact))


def names(planned: list[outputs.Wanted], extension: str | None = None) -> list[str]:
    return [one.name(extension) for one in planned]


@pytest.mark.parametrize(
    ("of", "named"),
    [
        (job(), ["dog-1.mp4"]),
        (job("d/a.mp4", named=True), ["d/a.mp4"]),
        (job("a", named=True), ["a"]),
        (job(urls=("u1", "u2")), ["dog-1-1.mp4", "dog-1-2.mp4"]),
        (job("d.x/a.b.mov", named=True, urls=("u1", "u2")), ["d.x/a.b-1.mov", "d.x/a.b-2.mov"]),
        (job("a", named=True, urls=("u1", "u2")), ["a-1", "a-2"]),
        (job(last_frame_url="u2"), ["dog-1.mp4", "dog-1-last-frame.png"]),
        (job("a.mp4", named=True, last_frame_url="u2"), ["a.mp4", "a-last-frame.png"]),
        (job(urls=("i", "v"), kinds=("image", "video")), ["dog-1-1.mp4", "dog-1-2.png"]),
        (job("a.mp4", named=True, urls=("v", "i"), kinds=("video", "image")), ["a-1.mp4", "a-2.png"]),
    ],
)
def test_names(of: Job, named: list[str]) -> None:
    planned = outputs.plan(of, "video")
    assert names(planned) == named
    assert planned[0].kind == "video"


def test_the_extension_is_that_of_what_came() -> None:
    assert names(outputs.plan(job(), "image"), ".jpg") == ["dog-1.jpg"]
    assert names(outputs.plan(job("a.png", named=True), "image"), ".jpg") == ["a.png"]


def test_what_was_ordered_comes_first_and_a_model_without_it_is_held_to_it() -> None:
    first, second = outputs.plan(job(urls=("i", "v"), kinds=("image", "video")), "video")
    assert (first.url, first.kind, second.url, second.kind) == ("v", "video", "i", "image")
    both = outputs.plan(job(urls=("a", "i"), kinds=("audio", "image")), "video")
    assert [one.kind for one in both] == ["video", "video"], "a picture does not pass for the clip"


def test_a_name_that_another_job_has_planned() -> None:
    planned = outputs.plan(job(urls=("u1", "u2", "u3")), "video")
    asked = set(outputs.names_to_ask(planned))
    assert {"dog-1-1", "dog-1-1.mp4", "dog-1-3.webm"} <= asked
    apart = outputs.set_apart(planned, {"dog-1-1", "dog-1-3.mp4"})
    assert names(apart) == ["dog-1-1.89abcdef.mp4", "dog-1-2.mp4", "dog-1-3.89abcdef.mp4"]
    assert all(one.name() in list(one.names()) for one in apart), "it is found again where it was placed"
    assert outputs.names_to_ask(outputs.plan(job(), "video")) == [], "a single output has the job's own name"


def test_a_long_name_is_shortened_and_stays_apart() -> None:
    long = [outputs.plan(job("x" * 230 + end, last_frame_url="u"), "video")[1].name() for end in ("a", "b")]
    assert len(set(long)) == 2
    assert all(len((name + ".part").encode()) <= 255 for name in long)


def test_the_facts_in_json_are_the_facts() -> None:
    still = Facts(width=40, height=30, codec="png")
    assert still.words() == {"duration_s": None, "width": 40, "height": 30, "codec": "png"}
    assert Facts().words() == {"duration_s": None, "width": None, "height": None, "codec": None}
    clip = replace(CLIP, fps=24.0, frames=121, broken="no picture")
    assert clip.words() == {
        "duration_s": 5.04,
        "width": 1280,
        "height": 720,
        "codec": "h264",
        "fps": 24.0,
        "audio": False,
        "frames": 121,
        "broken": "no picture",
    }
    for facts in (still, clip, Facts()):
        assert Facts.of({**facts.words(), "file": "a.mp4"}) == facts


@pytest.mark.parametrize("field", ["n", "num_outputs", "num_images", "number_of_images"])
@pytest.mark.parametrize(
    ("value", "outputs"), [(4, 4), ("3", 3), (1, 1), (0, None), (-1, None), (True, None), (10_001, None)]
)
def test_how_many_were_ordered(field: str, value: object, outputs: int | None) -> None:
    assert ordered("image", {"prompt": "n", field: value}) == Ordered("image", outputs=outputs)
