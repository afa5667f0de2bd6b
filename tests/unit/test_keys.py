"""A job's two identities."""

from __future__ import annotations

import re

import pytest

from batchrunner.core.keys import (
    MAX_VALUE,
    canonical_json,
    fingerprint,
    fingerprint_of,
    job_key,
    submission_token,
    value_text,
)


@pytest.mark.parametrize(
    ("shot", "matrix", "take", "key"),
    [
        ("corgi", {}, 1, "corgi-1"),
        ("corgi-2", {}, 11, "corgi-2-11"),
        ("corgi", {"place": "beach", "duration": 5}, 2, "corgi@duration=5+place=beach-2"),
        ("corgi", {"on": True, "n": None, "r": 0.5}, 1, "corgi@n=null+on=true+r=0.5-1"),
        ("corgi", {"ratio": "x.y_z-1"}, 1, "corgi@ratio=x.y_z-1-1"),
    ],
)
def test_readable(shot: str, matrix: dict[str, object], take: int, key: str) -> None:
    assert job_key(shot, matrix, take) == key


@pytest.mark.parametrize(
    "value",
    [
        *(
            "16:9",
            "a b",
            "",
            ".",
            "..",
            ".hidden",
            "-x",
            "a--b",
            "x" * (MAX_VALUE + 1),
            "犬",
            "a/b",
            "a+b",
            "a=b",
            "a@b",
            "$(rm)",
        ),
        *("5", "true", "null", "0.5", "NaN", "1e5", [1, 2], {"a": 1}, -5, 1e22),
    ],
)
def test_what_is_unsafe_or_mistakable_is_shortened_and_hashed(value: object) -> None:
    text = value_text(value)
    assert re.fullmatch(r"[A-Za-z0-9._]+\.[0-9a-f]{8}", text)
    assert not text.startswith(".")
    assert len(text) <= MAX_VALUE + 9


@pytest.mark.parametrize(
    ("value", "begins"),
    [
        ("a b", "a_b."),
        ("Zoë + X", "Zo_X."),
        ("X y X", "X_y_X."),
        ("_ä_", "x."),
        (".hidden.", "hidden."),
        ("Ab" * MAX_VALUE, "Ab" * (MAX_VALUE // 2) + "."),
        (1.12345678, "1.12345678."),  # it looks like a short form: two values must never look the same
    ],
)
def test_what_is_readable_of_a_value_stays(value: object, begins: str) -> None:
    text = value_text(value)
    assert text.startswith(begins)
    assert re.fullmatch(r"[0-9a-f]{8}", text.removeprefix(begins))


def test_the_longest_value_that_stands_as_it_is() -> None:
    assert value_text("x" * MAX_VALUE) == "x" * MAX_VALUE


def test_a_value_that_spells_another_ones_short_form_is_not_mistaken_for_it() -> None:
    """`a b` is shortened to `a_b.<hash>`; that text itself is a value of its own."""
    short = value_text("a b")
    assert value_text(short) != short
    assert job_key("dog", {"x": "a b"}, 1) != job_key("dog", {"x": short}, 1)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (5, "5"),
        (5, 5.0),
        (True, 1),
        (True, "true"),
        (None, "null"),
        (0, False),
        ("", None),
        (0.0, -0.0),
        ([], {}),
        ("a", ["a"]),
        (1, [1]),
    ],
)
def test_types_are_told_apart(one: object, other: object) -> None:
    assert value_text(one) != value_text(other)
    assert fingerprint("p", "m", {"x": one}) != fingerprint("p", "m", {"x": other})


def test_fingerprint_covers_provider_model_and_request() -> None:
    base = fingerprint("reapi", "kling", {"a": 1, "b": [1, 2]})
    assert re.fullmatch(r"[0-9a-f]{32}", base)
    assert base == fingerprint("reapi", "kling", {"b": [1, 2], "a": 1})
    others = [
        fingerprint("other", "kling", {"a": 1, "b": [1, 2]}),
        fingerprint("reapi", "kling2", {"a": 1, "b": [1, 2]}),
        fingerprint("reapi", "kling", {"a": 1, "b": [2, 1]}),
        fingerprint("reapi", "kling", {"a": 1}),
        fingerprint("reapi", "kling", {"a": 1, "b": [1, 2], "c": None}),
    ]
    assert len({base, *others}) == 6


def test_a_request_that_is_text_already_has_the_same_fingerprint() -> None:
    request = {"prompt": "a corgi, “winter” 犬", "duration": 5}
    text = canonical_json(request).decode()
    assert fingerprint_of('re"api', "kling-ü", text) == fingerprint('re"api', "kling-ü", request)


def test_a_fingerprint_never_changes_between_releases() -> None:
    """Ledgers are older than programs: another spelling would pay for everything again."""
    request = {"model": "kling-3-0-turbo", "prompt": "a corgi, “winter” 犬", "duration": 5}
    assert fingerprint("reapi", "kling-3-0-turbo", request) == FIXED


FIXED = "a4b3740723e954ad48f8e6643209e943"


def test_canonical_json_is_strict() -> None:
    assert canonical_json({"b": "é", "a": [1, 1.5, None, True]}) == '{"a":[1,1.5,null,true],"b":"é"}'.encode()
    for number in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="not JSON compliant"):
            canonical_json(number)


def test_the_name_of_a_submission_is_for_ever() -> None:
    """A later version asks the service for what an earlier one has sent."""
    assert submission_token("night", 1.5, "dog-1", 1) == "280d496d0cd87c9c59c1fe5b69080710e0eef936"
