"""The parser of answers: whatever the bytes, a value with a class, and never the key."""

from __future__ import annotations

import json
import tracemalloc
import zlib
from typing import Any, get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from batchrunner.core.events import Accepted, Ambiguous, PollAnswer, PollFailed, SubmitAnswer, Throttled
from batchrunner.core.job import Problem
from batchrunner.providers import answers
from batchrunner.providers.base import BalanceAnswer
from batchrunner.providers.replies import MAX_MESSAGE, MAX_WORD, Reply, retry_after_seconds, usable_task_id
from batchrunner.providers.wire import MAX_ANSWER, Key

KEY = Key("rk_live_canary_0123456789")
NOW = 1_800_000_000.0

_WORDS = ("id task_id data status output error code message request_id usage credits balance x",)
_LISTS = ("video_urls", "image_urls", "audio_urls", "last_frame_url")
names = st.sampled_from([*_WORDS[0].split(), *_LISTS])
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(["processing", "completed", "failed", "task_1", KEY.reveal(), "https://x/y", "80006"])
)
values = st.recursive(scalars, lambda v: st.lists(v, max_size=4) | st.dictionaries(names, v, max_size=6), max_leaves=20)
objects = st.dictionaries(names, values, max_size=8)


def _encode(value: Any) -> bytes:
    return json.dumps(value).encode()


bodies = st.one_of(
    objects.map(_encode),
    values.map(_encode),
    st.binary(max_size=200),
    st.tuples(objects.map(_encode), st.integers(0, 400)).map(lambda t: t[0][: t[1]]),
    objects.map(lambda o: zlib.compress(_encode(o))),
)
headers = st.none() | st.text(max_size=40) | st.sampled_from(["5", "Wed, 21 Oct 2026 07:28:00 GMT", KEY.reveal()])
replies = st.builds(
    Reply,
    status=st.integers(-1, 1000) | st.sampled_from([200, 201, 400, 401, 402, 403, 404, 413, 422, 429, 500, 503]),
    body=bodies,
    encoding=st.sampled_from(["", "identity", "gzip", "deflate", "br", "gzip, gzip", "\x00"]),
    retry_after=headers,
    date=headers,
    request_id=headers,
    cut=st.sampled_from(["", "it broke"]),
)


def _storable(value: object) -> bool:
    """No secret in it, and nothing that SQLite could not hold."""
    if isinstance(value, Problem):
        assert value.message
        assert len(value.message) <= 2 * MAX_MESSAGE
        assert value.code is None or isinstance(value.code, str) or abs(value.code) < 2**63
        assert value.request_id is None or 0 < len(value.request_id) <= MAX_WORD
    return KEY.reveal() not in repr(value)


@given(replies)
@example(Reply(200, _encode({"id": KEY.reveal()})))
@example(Reply(429, _encode({"error": {"code": 50001}}), retry_after="9" * 400))
@example(Reply(429, _encode({"error": {"code": 50001}}), retry_after="Wed, 99 Oct 99999 07:28:00 +9999"))
@example(Reply(400, b'{"error": {"code": ' + b"9" * 300 + b"}}"))
@example(Reply(200, b"[" * 100_000))
@example(Reply(200, _encode({"balance": 1e300})))
def test_never_raises(reply: Reply) -> None:
    submitted = answers.submit_answer(reply, KEY, NOW)
    assert isinstance(submitted, get_args(SubmitAnswer))
    assert _storable(submitted)
    assert _storable(getattr(submitted, "problem", None))
    polled = answers.poll_answer(reply, "task_1", KEY, NOW)
    assert isinstance(polled, get_args(PollAnswer))
    assert _storable(polled)
    assert _storable(getattr(polled, "problem", None))
    balance = answers.balance_answer(reply, KEY, NOW)
    assert isinstance(balance, get_args(BalanceAnswer))
    assert _storable(balance)


@given(replies)
def test_only_a_2xx_with_one_usable_id_is_accepted(reply: Reply) -> None:
    answer = answers.submit_answer(reply, KEY)
    if isinstance(answer, Accepted):
        assert 200 <= reply.status <= 299
        assert usable_task_id(answer.task_id)
        assert answer.task_id.encode() in reply.body or reply.encoding


@given(replies)
def test_only_a_whole_envelope_with_the_right_status_proves_anything(reply: Reply) -> None:
    answer = answers.submit_answer(reply, KEY)
    if not isinstance(answer, Accepted | Ambiguous):
        assert reply.status in {400, 401, 402, 403, 404, 413, 422, 429}
        assert not reply.cut
        assert isinstance(json.loads(zlib.decompress(reply.body) if reply.encoding == "deflate" else reply.body), dict)


@given(replies.filter(lambda r: 200 <= r.status <= 299))
def test_a_poll_that_does_not_echo_the_id_says_nothing(reply: Reply) -> None:
    assert isinstance(answers.poll_answer(reply, "another-task", KEY), PollFailed)


@pytest.mark.parametrize(
    ("value", "date", "now", "expected"),
    [
        (None, None, None, None),
        ("5", None, None, 5.0),
        (" 5 ", None, None, 5.0),
        ("1.5", None, None, 1.5),
        ("-1", None, None, None),
        ("1e3", None, None, None),
        ("inf", None, None, None),
        ("nan", None, None, None),
        ("٣", None, None, None),
        ("", None, None, None),
        ("99999999999", None, None, None),
        ("Thu, 01 Jan 1970 00:01:00 GMT", None, None, None),
        ("Thu, 01 Jan 1970 00:01:00 GMT", None, 10.0, 50.0),
        ("Thu, 01 Jan 1970 00:01:00 GMT", "Thu, 01 Jan 1970 00:00:30 GMT", 10.0, 30.0),
        ("Thu, 01 Jan 1970 00:01:00 GMT", "nonsense", 10.0, 50.0),
        ("Thu, 01 Jan 1970 00:01:00", "Thu, 01 Jan 1970 00:00:30 GMT", None, 30.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", "Thu, 01 Jan 1970 00:00:30 GMT", None, 0.0),
        ("Thu, 01 Jan 99999 00:00:00 GMT", None, 10.0, None),
    ],
)
def test_retry_after(value: str | None, date: str | None, now: float | None, expected: float | None) -> None:
    assert retry_after_seconds(value, date, now) == expected


@pytest.mark.parametrize("good", ["task_" + "0" * 32, "task_" + "A" * 26, "a", "a.b-c_d", "a" * 128, "..."])
def test_usable_ids(good: str) -> None:
    assert usable_task_id(good)


@pytest.mark.parametrize("bad", ["", ".", "..", "a/b", "a b", "a\n", "é", "a" * 129, None, 7, ["a"], "٣"])
def test_unusable_ids(bad: object) -> None:
    assert not usable_task_id(bad)


def test_a_compressed_answer_is_read_up_to_the_limit_and_no_further() -> None:
    fits = json.dumps({"id": "task_1", "x": "a" * (MAX_ANSWER - 100)}).encode()
    large = json.dumps({"id": "task_1", "x": "a" * MAX_ANSWER}).encode()
    assert answers.submit_answer(Reply(200, zlib.compress(fits), "deflate"), KEY) == Accepted("task_1")
    assert isinstance(answers.submit_answer(Reply(200, zlib.compress(large), "deflate"), KEY), Ambiguous)


def test_a_bomb_is_not_unpacked() -> None:
    """A megabyte on the wire may be a gigabyte in memory."""
    bomb = zlib.compress(b'{"id": "task_1", "x": "' + b"a" * (64 << 20) + b'"}')
    tracemalloc.start()
    try:
        answer = answers.submit_answer(Reply(200, bomb, "deflate"), KEY)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(answer, Ambiguous)
    assert peak < 8 * MAX_ANSWER


def test_messages_are_kept_raw_but_cut() -> None:
    reply = Reply(429, _encode({"error": {"code": 50001, "message": "\x1b[31m" + "é" * 1000}}))
    answer = answers.submit_answer(reply, KEY)
    assert isinstance(answer, Throttled)
    assert answer.problem.message == "\x1b[31m" + "é" * 495


def test_evidence_has_the_facts() -> None:
    answer = answers.submit_answer(Reply(503, b"<html>", request_id="req_7"), KEY)
    assert isinstance(answer, Ambiguous)
    assert answer.problem.http_status == 503
    assert answer.problem.request_id == "req_7"
    assert "6 bytes" in answer.problem.message
    assert "sha256" in answer.problem.message


def test_a_short_key_is_not_searched_for_in_everything() -> None:
    """A simulator's key may be "sim": an id that contains it is an id all the same."""
    assert answers.submit_answer(Reply(200, _encode({"id": "task_sim1"})), Key("sim")) == Accepted("task_sim1")
