"""Keys and fingerprints over everything that a manifest can say."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from batchrunner.core.keys import canonical_json, fingerprint, job_key, value_text

CHARSET = re.compile(r"[A-Za-z0-9._=+@-]+")

shots = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,9}", fullmatch=True)
axes = st.from_regex(r"[A-Za-z_][A-Za-z0-9_-]{0,5}", fullmatch=True)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
words = st.from_regex(r"[a-z0-9._+=@-]{0,12}", fullmatch=True)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
    | words
    | st.sampled_from(["5", "5.0", "true", "null", "a-1", "a+b=c", "-1", "1-1"])
)
values = st.recursive(scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(texts, v, max_size=3), max_leaves=5)
matrices = st.dictionaries(axes, values, max_size=3)
jobs = st.tuples(shots, matrices, st.integers(1, 30))


def _same(a: Any, b: Any) -> bool:
    """Whether two values are one JSON text: `5` is not `5.0`, `True` is not `1`."""
    return json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)


@given(jobs)
def test_charset(job: tuple[str, dict[str, Any], int]) -> None:
    key = job_key(*job)
    assert CHARSET.fullmatch(key)
    assert not key.startswith((".", "-"))
    assert key.endswith(f"-{job[2]}")


@given(jobs, jobs)
@example(("a", {}, 11), ("a-1", {}, 1))
@example(("a", {"x": "1-1"}, 1), ("a", {"x": "1"}, 11))
@example(("a", {"x": "1", "y": "2"}, 1), ("a", {"x": "1+y=2"}, 1))
@example(("a", {"x": 5}, 1), ("a", {"x": "5"}, 1))
@example(("a", {"x": 5}, 1), ("a", {"x": 5.0}, 1))
def test_injective(a: tuple[str, dict[str, Any], int], b: tuple[str, dict[str, Any], int]) -> None:
    same = a[0] == b[0] and a[2] == b[2] and _same(a[1], b[1])
    assert (job_key(*a) == job_key(*b)) is same


@given(values, values)
def test_value_text_is_injective(a: Any, b: Any) -> None:
    assert (value_text(a) == value_text(b)) is _same(a, b)


@given(values)
def test_a_values_text_is_itself_another_value(a: Any) -> None:
    text = value_text(a)
    assume(text != a)
    assert value_text(text) != text


@given(jobs, st.randoms(use_true_random=False))
def test_stable_under_reordering(job: tuple[str, dict[str, Any], int], random: Any) -> None:
    shot, matrix, take = job
    items = list(matrix.items())
    random.shuffle(items)
    assert job_key(shot, dict(items), take) == job_key(shot, matrix, take)


requests = st.dictionaries(texts, values, max_size=5)


@given(requests, st.randoms(use_true_random=False))
def test_fingerprint_is_independent_of_order(request: dict[str, Any], random: Any) -> None:
    items = list(request.items())
    random.shuffle(items)
    assert fingerprint("p", "m", dict(items)) == fingerprint("p", "m", request)


@given(requests, requests)
def test_fingerprint_is_the_requests_json(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert (fingerprint("p", "m", a) == fingerprint("p", "m", b)) is _same(a, b)


@given(requests)
def test_canonical_json_says_the_same(request: dict[str, Any]) -> None:
    assert _same(json.loads(canonical_json(request)), request)


def plainly(value: Any) -> bytes:
    """The spelling that every fingerprint of every ledger was made of."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


@given(requests)
def test_canonical_json_has_one_spelling_whoever_writes_it(request: dict[str, Any]) -> None:
    assert canonical_json(request) == plainly(request)


def test_every_character_is_spelled_as_it_always_was() -> None:
    """In a value and in a key: an escape hangs on one character, so that this is all of them."""
    every = "".join(map(chr, (*range(0xD800), *range(0xE000, 0x110000))))
    request = {every: every, "": "", "\U00010000": 0, "\uffff": None, "n": -(2**63), "m": 2**64 - 1, "yes": True}
    assert canonical_json(request) == plainly(request)


def test_what_only_one_of_the_two_can_write() -> None:
    for value in (2**64, -(2**63) - 1, 1e16, -0.0, 1e-7):
        assert canonical_json({"x": value}) == plainly({"x": value})
    for refused in ("\ud800", math.nan, math.inf):
        with pytest.raises(ValueError, match=r"surrogates not allowed|not JSON compliant"):
            canonical_json({"x": refused})
