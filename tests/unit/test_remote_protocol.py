"""What may be asked of a run: every request there is, and nothing else, whatever comes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrunner.remote.protocol import (
    MAX_LIMIT,
    MAX_LINE,
    MAX_WORD,
    BadRequest,
    Cancel,
    Continue,
    Limits,
    Look,
    Pause,
    Request,
    encode,
    parse,
    patience,
)

REQUESTS: list[Request] = [
    Look(),
    Pause(),
    Continue(),
    Limits(),
    Limits(in_flight=40),
    Limits(0.5, 1),
    Cancel(("night", "dog-*"), "enough"),
]


@pytest.mark.parametrize("request_", REQUESTS, ids=str)
def test_what_is_asked_is_what_is_understood(request_: Request) -> None:
    line = encode(request_)
    assert line.count(b"\n") == 1
    assert parse(line) == request_
    assert patience(request_) > 1.0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no JSON"),
        ("pause", "no JSON"),
        ("[" * 5000, "no JSON"),
        ("[]", "no JSON object"),
        ("{}", "`do` must be one of status, pause"),
        ('{"do": ["pause"]}', "`do` must be one of"),
        ('{"do": "shutdown"}', "`do` must be one of"),
        ('{"do": "pause", "now": 1}', "pause takes no 'now'"),
        ('{"do": "limits", "in_flight": 0}', "`in_flight` must be"),
        ('{"do": "limits", "in_flight": true}', "`in_flight` must be"),
        ('{"do": "limits", "in_flight": 1.5}', "`in_flight` must be"),
        (f'{{"do": "limits", "in_flight": {MAX_LIMIT + 1}}}', "`in_flight` must be"),
        ('{"do": "limits", "submits_per_minute": 0}', "`submits_per_minute` must be"),
        ('{"do": "limits", "submits_per_minute": NaN}', "`submits_per_minute` must be"),
        ('{"do": "limits", "submits_per_minute": Infinity}', "`submits_per_minute` must be"),
        ('{"do": "limits", "submits_per_minute": "60"}', "`submits_per_minute` must be"),
        ('{"do": "cancel"}', "`names` must be"),
        ('{"do": "cancel", "names": []}', "`names` must be"),
        ('{"do": "cancel", "names": [""]}', "`names` must be"),
        ('{"do": "cancel", "names": "night"}', "`names` must be"),
        ('{"do": "cancel", "names": ["\\ud800"]}', "`names` must be"),
        (json.dumps({"do": "cancel", "names": ["x" * (MAX_WORD + 1)]}), "`names` must be"),
        ('{"do": "cancel", "names": ["night"], "why": 3}', "`why` must be"),
    ],
    ids=lambda text: text[:40],
)
def test_what_is_not_understood_is_refused_with_a_reason(text: str, words: str) -> None:
    with pytest.raises(BadRequest, match=words.replace("[", r"\[")):
        parse(text.encode())


def test_a_request_that_no_run_would_read_is_not_sent() -> None:
    with pytest.raises(BadRequest, match="pattern"):
        encode(Cancel(("x" * MAX_WORD,) * (MAX_LINE // MAX_WORD + 1)))


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=6,
)
requests = st.dictionaries(
    st.sampled_from(["do", "names", "why", "in_flight", "submits_per_minute", "x"]),
    st.sampled_from(["status", "pause", "continue", "limits", "cancel"]) | values,
)


@given(st.binary(max_size=200) | requests.map(lambda found: json.dumps(found).encode()))
def test_any_line_is_a_request_or_a_refusal(line: bytes) -> None:
    try:
        understood = parse(line)
    except BadRequest:
        return
    assert parse(encode(understood)) == understood
