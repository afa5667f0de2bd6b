"""What may be asked of a run: every request there is, and nothing else, whatever comes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrunner.core.job import FailureKind
from batchrunner.core.promotion import Verdict
from batchrunner.core.words import Cancel, Judge, Resolve, Retry
from batchrunner.remote.protocol import (
    MAX_LIMIT,
    MAX_LINE,
    MAX_WORD,
    BadRequest,
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
    Limits(polls_per_minute=600.0),
    Cancel(("night", "dog-*"), "enough"),
    Retry(("night",)),
    Retry(("dog-1",), (FailureKind.LOST, FailureKind.MODERATED)),
    Resolve("dog-1", task_id="task_1", why="seen", revision=2),
    Resolve("dog-*", resubmit=True),
    Resolve("dog-*", abandon=True),
    Judge(("dog-*",), Verdict.APPROVED, "the light"),
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
        ('{"do": "limits", "polls_per_minute": 0.5}', "`polls_per_minute` must be"),
        ('{"do": "limits", "polls_per_minute": NaN}', "`polls_per_minute` must be"),
        ('{"do": "limits", "polls_per_minute": true}', "`polls_per_minute` must be"),
        ('{"do": "cancel"}', "`names` must be"),
        ('{"do": "cancel", "names": []}', "`names` must be"),
        ('{"do": "cancel", "names": [""]}', "`names` must be"),
        ('{"do": "cancel", "names": "night"}', "`names` must be"),
        ('{"do": "cancel", "names": ["\\ud800"]}', "`names` must be"),
        (json.dumps({"do": "cancel", "names": ["x" * (MAX_WORD + 1)]}), "`names` must be"),
        ('{"do": "cancel", "names": ["night"], "why": 3}', "`why` must be"),
        ('{"do": "retry", "names": ["night"], "kinds": "lost"}', "`kinds` must be a list"),
        ('{"do": "retry", "names": ["night"], "kinds": ["found"]}', "`kinds` must be of rejected, "),
        ('{"do": "retry", "names": ["night"], "kinds": [["lost"]]}', "`kinds` must be of"),
        ('{"do": "resolve", "name": "a-1"}', "exactly one of"),
        ('{"do": "resolve", "name": "a-1", "abandon": true, "resubmit": true}', "exactly one of"),
        ('{"do": "resolve", "name": "a-1", "abandon": 1}', "true or false"),
        ('{"do": "resolve", "name": "a-1", "task_id": "a b"}', "no task id"),
        ('{"do": "resolve", "name": "a-1", "task_id": 7}', "no task id"),
        ('{"do": "resolve", "name": null, "abandon": true}', "`name` must be"),
        ('{"do": "resolve", "name": "a-1", "abandon": true, "revision": 0}', "`revision` must be"),
        ('{"do": "judge", "names": ["a-1"], "verdict": "fine"}', "`verdict` must be of approved, rejected"),
        ('{"do": "judge", "names": ["a-1"], "verdict": "approved", "note": []}', "`note` must be"),
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
    st.sampled_from(
        ["do", "names", "name", "why", "in_flight", "submits_per_minute", "kinds", "abandon", "verdict", "x"]
    ),
    st.sampled_from(["status", "pause", "continue", "limits", "cancel", "retry", "resolve", "judge"]) | values,
)


@given(st.binary(max_size=200) | requests.map(lambda found: json.dumps(found).encode()))
def test_any_line_is_a_request_or_a_refusal(line: bytes) -> None:
    try:
        understood = parse(line)
    except BadRequest:
        return
    assert parse(encode(understood)) == understood
