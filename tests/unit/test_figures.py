"""Counts, times and what a file is, as people read them."""

from __future__ import annotations

import re
from typing import Any

import pytest

from batchrunner.core.figures import counted, local_time, media_words, span


@pytest.mark.parametrize(
    ("count", "noun", "words"),
    [(1, "job", "1 job"), (0, "job", "0 jobs"), (1200, "batch", "1,200 batches"), (1, "batch", "1 batch")],
)
def test_counts(count: int, noun: str, words: str) -> None:
    assert counted(count, noun) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-3.0, "0 s"),
        (0.2, "0 s"),
        (89.4, "89 s"),
        (90.0, "2 min"),
        (149.0, "2 min"),
        (150.0, "3 min"),
        (89 * 60.0, "89 min"),
        (90 * 60.0, "1 h 30 min"),
        (125 * 60.0, "2 h 05 min"),
        (61 * 3600.0, "61 h 00 min"),
    ],
)
def test_spans(seconds: float, words: str) -> None:
    assert span(seconds) == words


def test_a_time_that_has_not_come_is_nothing() -> None:
    assert local_time(None) == ""
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", local_time(0.0))
    assert re.fullmatch(r"\d\d:\d\d", local_time(0.0, "%H:%M"))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({}, ""),
        ({"codec": "png", "width": 40, "height": 30}, "40x30, png"),
        ({"codec": "mp3", "duration_s": 2.5}, "2.5 s, mp3"),
        (
            {"codec": "h264", "width": 1280, "height": 720, "duration_s": 5.0, "fps": 24.0, "audio": True},
            "1280x720, 5 s, h264, 24 pictures a second, with sound",
        ),
        ({"codec": "h264", "audio": False}, "h264, without sound"),
        ({"codec": "h264", "frames": 1210}, "h264, decoded to its last picture, 1,210 in all"),
    ],
)
def test_what_a_file_is(more: dict[str, Any], words: str) -> None:
    assert media_words({"duration_s": None, "width": None, "height": None, "codec": None, **more}) == words
