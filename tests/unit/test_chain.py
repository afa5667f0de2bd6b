"""References to another job's output: found, replaced, told apart, drawn."""

from __future__ import annotations

from typing import Any

import pytest

from batchrunner.core.chain import Link, Need, changed_parents, dot, mermaid, need_of, needs, replaced, spoken

STILL = Need("still-1", "aa", "output_url")
CLIP = Need("clip-1", "bb", "last_frame_url")


def test_a_reference_and_back() -> None:
    assert STILL.reference == {"$output": {"job": "still-1", "of": "aa", "url": "output_url"}}
    assert need_of(STILL.reference) == STILL
    assert CLIP.text == "${shots.clip-1.last_frame_url}"


@pytest.mark.parametrize(
    "value",
    [
        None,
        "$output",
        {},
        [],
        ["$output"],
        {"$output": "still-1"},
        {"output": {"job": "a", "of": "b", "url": "c"}},
        {**STILL.reference, "role": "first_frame"},
    ],
)
def test_nothing_else_is_a_reference(value: Any) -> None:
    assert need_of(value) is None
    request = {"prompt": "p", "image": value}
    assert needs(request) == ()
    assert replaced(request, lambda _: "x") == request


def test_what_a_request_needs_each_once_in_its_order_however_deep() -> None:
    request = {
        "model": "m",
        "images": [{"url": CLIP.reference, "role": "first_frame"}, "https://x.test/a.png", STILL.reference],
        "last": CLIP.reference,
    }
    assert needs(request) == (CLIP, STILL)
    assert replaced(request, lambda need: f"https://x.test/{need.job}") == {
        "model": "m",
        "images": [
            {"url": "https://x.test/clip-1", "role": "first_frame"},
            "https://x.test/a.png",
            "https://x.test/still-1",
        ],
        "last": "https://x.test/clip-1",
    }
    assert spoken({"first": STILL.reference, "n": 2}) == {"first": "${shots.still-1.output_url}", "n": 2}
    assert needs({"image": STILL.reference}) == needs({"images": [STILL.reference]}) == (STILL,)
    assert needs({"prompt": "p", "n": 3}) == ()


def again(need: Need) -> dict[str, Any]:
    """A reference to the next revision of the same output."""
    return Need(need.job, need.of + "2", need.url).reference


@pytest.mark.parametrize(
    ("before", "after", "parents"),
    [
        (STILL.reference, again(STILL), ("still-1",)),
        ([STILL.reference, CLIP.reference], [again(STILL), again(CLIP)], ("still-1", "clip-1")),
        ([STILL.reference, CLIP.reference], [STILL.reference, again(CLIP)], ("clip-1",)),
        ([STILL.reference, STILL.reference], [again(STILL), again(STILL)], ("still-1",)),
        (STILL.reference, STILL.reference, ()),
        ("a", "b", ()),
        (None, STILL.reference, ()),
        (STILL.reference, None, ()),
        (STILL.reference, CLIP.reference, ()),
        (STILL.reference, Need("still-1", "aa2", "last_frame_url").reference, ()),
        ({"url": STILL.reference, "role": "a"}, {"url": again(STILL), "role": "b"}, ()),
        ([STILL.reference], [again(STILL), CLIP.reference], ()),
    ],
)
def test_a_field_that_differs_by_its_parents_alone(before: Any, after: Any, parents: tuple[str, ...]) -> None:
    assert changed_parents(before, after) == parents


NODES = {'a"b\\-1': "630 credits", "c-1": "1 < 2\x1b[31m"}
LINKS = [Link('a"b\\-1', "c-1", "output_url")]


def test_drawn_for_mermaid_with_what_could_mean_something_escaped() -> None:
    assert mermaid(NODES, LINKS) == (
        "flowchart LR\n"
        '  n0["a#34;b#92;-1<br/>630 credits"]\n'
        '  n1["c-1<br/>1 #60; 2#92;x1b#91;31m"]\n'
        "  n0 -->|output_url| n1\n"
    )


def test_drawn_for_graphviz_with_what_could_mean_something_escaped() -> None:
    assert dot(NODES, LINKS) == (
        "digraph batch {\n"
        "  rankdir=LR;\n"
        "  node [shape=box];\n"
        '  "a\\"b\\\\-1" [label="a\\"b\\\\-1\\n630 credits"];\n'
        '  "c-1" [label="c-1\\n1 < 2\\\\x1b[31m"];\n'
        '  "a\\"b\\\\-1" -> "c-1" [label="output_url"];\n'
        "}\n"
    )


def test_letters_of_any_script_are_drawn_by_their_number() -> None:
    assert "é" not in mermaid({"é-1": ""}, [])
    assert "#233;-1" in mermaid({"é-1": ""}, [])
