"""What every provider must do, whichever its words: one suite, over real sockets.

A provider that is added gets a `Wording`, and has to pass all of it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator

import pytest

from batchrunner import plugins
from batchrunner.core.events import (
    Accepted,
    Ambiguous,
    Completed,
    Missing,
    NotSent,
    PollAnswer,
    PollFailed,
    Refusal,
    Refused,
    Rejected,
    StillRunning,
    SubmitAnswer,
    TaskFailed,
    Throttled,
)
from batchrunner.environment import connect, kind_of
from batchrunner.exits import UsageError
from batchrunner.providers.base import (
    Access,
    CancelAnswer,
    CancelAsked,
    CancelTooLate,
    Provider,
    Traceable,
    Unavailable,
)
from tests.providers.wordings import ID, MESSAGE, URL, WORDINGS, Wording
from tests.raw_server import Peer, RawServer, Request, Script, http, keep, once

KEY = "rk_live_canary_0123456789"


@pytest.fixture(params=WORDINGS)
def words(request: pytest.FixtureRequest) -> Wording:
    found: Wording = WORDINGS[request.param]
    return found


@contextlib.asynccontextmanager
async def provider_of(words: Wording, url: str) -> AsyncIterator[Provider]:
    provider = connect(kind_of(words.name), Access(url, KEY), lambda: 0.0)
    try:
        yield provider
    finally:
        await provider.aclose()


class Entered:
    """A `before_send` that counts, and raises where told."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.times = 0
        self._error = error

    async def __call__(self) -> None:
        self.times += 1
        if self._error is not None:
            raise self._error


async def submit(words: Wording, script: Script) -> tuple[SubmitAnswer, RawServer]:
    entered = Entered()
    async with RawServer(script) as server, provider_of(words, server.url) as provider:
        answer = await provider.submit(words.model, words.request, entered, label="dog-1")
        assert entered.times == 1
        assert len(server.requests) <= 1, "a POST was sent again"
        assert KEY not in repr(answer)
        return answer, server


async def poll(words: Wording, script: Script) -> PollAnswer:
    async with RawServer(script) as server, provider_of(words, server.url) as provider:
        answer = await provider.poll(ID, words.model)
        assert KEY not in repr(answer)
        assert all(r.headers["authorization"] == words.authorization + KEY for r in server.requests)
        return answer


def test_every_provider_that_is_shipped_is_held_to_this() -> None:
    assert set(WORDINGS) == set(plugins.SHIPPED)


# --- Submitting ------------------------------------------------------------------------------------------


async def test_what_is_sent_and_that_it_was_accepted(words: Wording) -> None:
    answer, server = await submit(words, once(http(words.created_status, words.created(ID))))
    assert isinstance(answer, Accepted)
    assert answer.task_id == ID
    (request,) = server.requests
    assert (request.method, request.target) == ("POST", words.post)
    assert json.loads(request.body) == words.sent
    assert request.headers["authorization"] == words.authorization + KEY
    assert request.headers["content-type"] == "application/json"
    assert "prefer" not in request.headers


@pytest.mark.parametrize("status", [200, 201, 202])
async def test_any_2xx_with_an_id_accepts(words: Wording, status: int) -> None:
    answer, _ = await submit(words, once(http(status, words.created(ID))))
    assert isinstance(answer, Accepted)


@pytest.mark.parametrize("status", [400, 404, 413, 422])
async def test_a_request_that_is_refused_is_rejected(words: Wording, status: int) -> None:
    answer, _ = await submit(words, once(http(status, words.error(status))))
    assert isinstance(answer, Rejected)
    assert (answer.problem.message, answer.problem.http_status) == (MESSAGE, status)


@pytest.mark.parametrize(
    ("status", "reason"), [(401, Refusal.CREDENTIALS), (403, Refusal.CREDENTIALS), (402, Refusal.CREDIT)]
)
async def test_an_account_that_is_refused(words: Wording, status: int, reason: Refusal) -> None:
    answer, _ = await submit(words, once(http(status, words.error(status))))
    assert isinstance(answer, Refused)
    assert answer.reason is reason


@pytest.mark.parametrize(("header", "seconds"), [("17", 17.0), (None, None), ("soon", None)])
async def test_a_429_holds(words: Wording, header: str | None, seconds: float | None) -> None:
    headers = [] if header is None else [("Retry-After", header)]
    answer, _ = await submit(words, once(http(429, words.error(429), *headers)))
    assert isinstance(answer, Throttled)
    assert answer.retry_after == seconds


@pytest.mark.parametrize(
    "what",
    [
        "500",
        "503",
        "proxy 400",
        "proxy 401",
        "proxy 429",
        "cut error",
        "error with an id",
        "redirect",
        "html",
        "no id",
        "id of a number",
        "id with a slash",
        "half",
        "empty",
        "nothing",
        "garbage",
    ],
)
async def test_whatever_proves_nothing_is_ambiguous(words: Wording, what: str) -> None:
    """After the hook has let the POST go, only the provider's own words prove that nothing was created."""
    good = json.dumps(words.created(ID)).encode()
    status = words.created_status
    data = {
        "500": http(500, words.error(500)),
        "503": http(503, words.error(503), ("Retry-After", "5")),
        "proxy 400": http(400, "<html>bad request</html>"),
        "proxy 401": http(401, "Unauthorized"),
        "proxy 429": http(429, "slow down", ("Retry-After", "5")),
        "cut error": http(400, words.error(400), length=10_000),
        "error with an id": http(400, {**words.created(ID), **words.error(400)}),
        "redirect": http(307, words.created(ID), ("Location", words.post)),
        "html": http(status, "<html></html>"),
        "no id": http(status, words.created(None)),
        "id of a number": http(status, words.created(7)),
        "id with a slash": http(status, words.created("a/../b")),
        "half": http(status, good[:-1]),
        "empty": http(status),
        "nothing": b"",
        "garbage": b"\x16\x03\x01 what is this\r\n\r\n",
    }[what]
    answer, _ = await submit(words, once(data))
    assert isinstance(answer, Ambiguous), answer


async def test_a_reset_after_sending_is_ambiguous(words: Wording) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        peer.reset()

    answer, _ = await submit(words, script)
    assert isinstance(answer, Ambiguous)


async def test_an_answer_that_ends_at_any_byte_is_no_wrong_verdict(words: Wording) -> None:
    whole = http(words.created_status, words.created(ID))
    for cut in range(0, len(whole), 7):
        answer, _ = await submit(words, once(whole[:cut]))
        assert isinstance(answer, Ambiguous), cut


async def test_without_a_connection_nothing_is_ambiguous(words: Wording) -> None:
    """The hook is not entered: certainly not sent."""
    entered = Entered()
    async with provider_of(words, "http://127.0.0.1:1") as provider:
        answer = await provider.submit(words.model, words.request, entered)
    assert isinstance(answer, NotSent)
    assert entered.times == 0


async def test_what_the_hook_raises_comes_out_and_nothing_was_sent(words: Wording) -> None:
    class Full(Exception):
        pass

    async def script(peer: Peer) -> None:
        await peer.until_gone()

    async with RawServer(script) as server, provider_of(words, server.url) as provider:
        with pytest.raises(Full):
            await provider.submit(words.model, words.request, Entered(Full()))
        await server.peers[0].gone.wait()
        assert bytes(server.peers[0].received) == b""


async def test_a_model_of_another_provider_is_not_sent(words: Wording) -> None:
    other = next(w for w in WORDINGS.values() if w.name != words.name)
    entered = Entered()
    async with provider_of(words, "http://127.0.0.1:1") as provider:
        answer = await provider.submit(other.model, other.request, entered)
    assert isinstance(answer, NotSent)
    assert (answer.problem.code, entered.times) == ("unknown_model", 0)


# --- Polling ---------------------------------------------------------------------------------------------


async def test_a_task_that_runs(words: Wording) -> None:
    answer = await poll(words, keep(words.polled("running")))
    assert isinstance(answer, StillRunning)
    assert answer.known


async def test_a_status_that_nobody_has_documented_is_still_running(words: Wording) -> None:
    assert await poll(words, keep(words.polled("dreaming"))) == StillRunning("dreaming", known=False)


async def test_a_task_that_is_done(words: Wording) -> None:
    assert await poll(words, keep(words.polled("done"))) == Completed((URL, URL + "?1"))


@pytest.mark.parametrize("state", ["failed", "moderated"])
async def test_a_task_that_failed(words: Wording, state: str) -> None:
    answer = await poll(words, keep(words.polled(state)))
    assert isinstance(answer, TaskFailed)
    assert answer.moderated == (state == "moderated")
    assert MESSAGE in answer.problem.message
    assert answer.problem.code is not None
    assert answer.charged == (state in words.charged)
    assert not (answer.charged and kind_of(words.name).capabilities.refunds)


async def test_done_without_an_output_says_nothing(words: Wording) -> None:
    assert isinstance(await poll(words, keep(words.polled("no output"))), PollFailed)


@pytest.mark.parametrize("state", ["running", "done", "failed"])
async def test_an_answer_about_another_task_says_nothing(words: Wording, state: str) -> None:
    answer = await poll(words, keep(words.polled(state, "task-other")))
    assert isinstance(answer, PollFailed)
    assert "not about this task" in answer.problem.message


async def test_a_task_that_is_not_known(words: Wording) -> None:
    assert isinstance(await poll(words, keep(lambda _: http(404, words.error(404)))), Missing)


async def test_a_404_of_somebody_else_says_nothing(words: Wording) -> None:
    assert isinstance(await poll(words, keep(lambda _: http(404, "<html>nginx</html>"))), PollFailed)


@pytest.mark.parametrize("status", [500, 502, 503])
async def test_a_poll_that_fails_says_nothing(words: Wording, status: int) -> None:
    assert isinstance(await poll(words, keep(lambda _: http(status, words.error(status)))), PollFailed)


async def test_a_poll_that_is_held_or_refused(words: Wording) -> None:
    held = await poll(words, keep(lambda _: http(429, words.error(429), ("Retry-After", "3"))))
    assert isinstance(held, Throttled)
    assert held.retry_after == 3.0
    refused = await poll(words, keep(lambda _: http(401, words.error(401))))
    assert isinstance(refused, Refused)


async def test_what_is_no_task_id_is_not_asked_for(words: Wording) -> None:
    async with provider_of(words, "http://127.0.0.1:1") as provider:
        for bad in ("", "..", "a/b", "a?b", "x" * 129, "tésk"):
            answer = await provider.poll(bad, words.model)
            assert isinstance(answer, PollFailed)
            assert answer.problem.code == "bad_task_id"


async def test_a_key_that_is_echoed_is_hidden(words: Wording) -> None:
    echo = json.dumps(words.error(400)).replace(MESSAGE, f"bad header {words.authorization}{KEY}").encode()
    answer, _ = await submit(words, once(http(400, echo)))
    assert isinstance(answer, Rejected)
    assert "(the key)" in answer.problem.message


# --- The account -----------------------------------------------------------------------------------------


async def test_a_service_without_a_balance_says_so(words: Wording) -> None:
    if kind_of(words.name).capabilities.balance:
        return
    async with provider_of(words, "http://127.0.0.1:1") as provider:
        answer = await provider.balance()
    assert isinstance(answer, Unavailable)
    assert answer.problem.code == "no_balance_call"


@pytest.mark.parametrize("url", ["http://example.com", "https://user:x@example.com", "ftp://example.com", "x"])
def test_the_key_travels_protected(words: Wording, url: str) -> None:
    with pytest.raises(UsageError, match="the server's address") as caught:
        connect(kind_of(words.name), Access(url, KEY))
    assert KEY not in str(caught.value)


async def cancel(words: Wording, data: bytes) -> tuple[CancelAnswer, list[Request]]:
    async with RawServer(once(data)) as server, provider_of(words, server.url) as provider:
        return await provider.cancel(ID, words.model), server.requests


async def test_a_running_task_is_cancelled_where_that_is_possible(words: Wording) -> None:
    assert kind_of(words.name).capabilities.cancel == (words.cancel is not None)
    if words.cancel is None or words.cancelled is None:
        answer, requests = await cancel(words, b"")
        assert isinstance(answer, Unavailable)
        assert requests == []
        return
    answer, (request,) = await cancel(words, words.cancelled("running"))
    assert isinstance(answer, CancelAsked)
    assert (request.method, request.target) == words.cancel
    assert request.headers["authorization"] == words.authorization + KEY
    late, _ = await cancel(words, words.cancelled("done"))
    assert isinstance(late, CancelTooLate)


@pytest.mark.parametrize("status", [401, 429, 404, 500])
async def test_a_cancel_that_is_refused_promises_nothing(words: Wording, status: int) -> None:
    answer, _ = await cancel(words, http(status, words.error(status)))
    assert not isinstance(answer, CancelAsked)
    broken, _ = await cancel(words, b"")
    assert isinstance(broken, Unavailable)


async def test_what_is_no_task_id_is_not_cancelled(words: Wording) -> None:
    async with provider_of(words, "http://127.0.0.1:1") as provider:
        answer = await provider.cancel("a/../b", words.model)
    assert isinstance(answer, Unavailable)
    assert answer.problem.code == "bad_task_id"


async def test_a_lookup_is_there_exactly_where_it_is_declared(words: Wording) -> None:
    """What one must do stands in test_lookup.py. No shipped service documents one that is certain."""
    async with provider_of(words, "http://127.0.0.1:1") as provider:
        assert isinstance(provider, Traceable) == kind_of(words.name).capabilities.lookup


# --- What only one of them says --------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["cancelled", "cancelled late", "expired"])
async def test_a_prediction_that_ends_otherwise(state: str) -> None:
    words = WORDINGS["replicate"]
    answer = await poll(words, keep(words.polled(state)))
    assert isinstance(answer, TaskFailed)
    assert answer.charged == (state in words.charged)


async def test_an_output_of_replicate_is_whatever_the_model_makes() -> None:
    from batchrunner.providers.replicate import poll_answer
    from batchrunner.providers.replies import Reply
    from batchrunner.providers.wire import Key

    for output in (URL, [URL], {"video": URL}, {"files": [URL]}, [None, 7, URL, "not a url"], {"a": URL, "b": URL}):
        body = json.dumps({"id": ID, "status": "succeeded", "output": output}).encode()
        assert poll_answer(Reply(200, body), ID, Key(KEY)) == Completed((URL,))
    for nothing in ("a text", [], {}, 7, [[URL]], {"a": {"b": URL}}, f"https://x/{KEY}"):
        body = json.dumps({"id": ID, "status": "succeeded", "output": nothing}).encode()
        assert isinstance(poll_answer(Reply(200, body), ID, Key(KEY)), PollFailed)


@pytest.mark.parametrize(
    ("result", "kind"),
    [
        (http(502, "<html>bad gateway</html>"), PollFailed),  # the gateway's, and not the model's
        (http(500, {"detail": "Internal Server Error"}), PollFailed),  # without a type it may be anybody's
        (http(422, {"detail": [{"msg": "no", "type": "value_error"}]}, ("X-Fal-Request-Id", "r")), TaskFailed),
        (http(404, {"detail": "Request not found"}), PollFailed),
        (http(401, {"detail": "No"}), Refused),
        (http(200, {"video": {"url": URL}, "thumbnail": {"url": URL + "?t"}}), Completed),
    ],
)
async def test_what_the_result_of_fal_says(result: bytes, kind: type[PollAnswer]) -> None:
    """The status was good: what is asked for then is what the model answered, or somebody in between."""
    words = WORDINGS["fal"]
    done = words.state("done", ID)
    answers = {path: data if path.endswith("/status") else result for path, data in done.items()}
    answer = await poll(words, keep(lambda request: answers[request.target]))
    assert isinstance(answer, kind), answer
