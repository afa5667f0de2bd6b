"""What must hold on asyncio's loop must hold on uvloop, on which users run: the same cases, over again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import uvloop

from batchrunner.core.events import PollAnswer, SubmitAnswer
from batchrunner.providers.fetch import FetchError
from tests.integration import test_fetch as downloads
from tests.integration import test_reapi_aiohttp_contract as contract
from tests.integration import test_reapi_poll as polls
from tests.integration import test_reapi_submit as submits
from tests.raw_server import envelope, http


@pytest.mark.parametrize("data", submits.ACCEPTED.values(), ids=submits.ACCEPTED.keys())
def test_accepted(data: bytes) -> None:
    uvloop.run(submits.test_an_id_that_was_read_is_taken(data))


@pytest.mark.parametrize(("data", "kind", "detail"), submits.PROVEN.values(), ids=submits.PROVEN.keys())
def test_proven(data: bytes, kind: type[SubmitAnswer], detail: object) -> None:
    uvloop.run(submits.test_the_providers_own_words_prove_that_nothing_was_created(data, kind, detail))


@pytest.mark.parametrize("data", submits.AMBIGUOUS.values(), ids=submits.AMBIGUOUS.keys())
def test_ambiguous(data: bytes) -> None:
    uvloop.run(submits.test_everything_else_is_ambiguous(data))


@pytest.mark.parametrize("status", [200, 400])
def test_cut_at_any_byte(status: int) -> None:
    uvloop.run(submits.test_an_answer_cut_at_any_byte(status))


@pytest.mark.parametrize("when", ["before reading", "after reading", "in the answer"])
def test_reset(when: str) -> None:
    uvloop.run(submits.test_a_reset(when))


@pytest.mark.parametrize("error", [submits.Custom(), OSError(28, "full"), TimeoutError(), asyncio.CancelledError()])
def test_the_hooks_exception(error: BaseException) -> None:
    uvloop.run(submits.test_what_the_hook_raises_comes_out_unchanged_and_nothing_is_sent(error))


@pytest.mark.parametrize("spoken", [http(200, submits.CREATED), http(400, envelope()), b""])
def test_a_server_that_speaks_first(spoken: bytes) -> None:
    uvloop.run(submits.test_a_server_that_speaks_or_leaves_before_it_is_asked(spoken))


def test_the_rest_of_submitting() -> None:
    for case in (
        submits.test_the_hook_is_awaited_before_the_first_byte,
        submits.test_a_server_that_never_answers,
        submits.test_a_server_that_stops_within_its_answer,
        submits.test_an_id_that_was_read_before_the_timeout_is_taken,
        submits.test_an_answer_before_the_request_was_read,
        submits.test_refused_connection,
        submits.test_a_server_without_tls,
        submits.test_a_tls_handshake_that_never_ends,
        submits.test_no_free_connection,
        submits.test_cancelled_while_connecting,
        submits.test_cancelled_in_the_hook,
        submits.test_every_post_has_a_connection_of_its_own,
        submits.test_the_request_itself,
    ):
        uvloop.run(case())


@pytest.mark.parametrize(("data", "expected"), polls.ANSWERS.values(), ids=polls.ANSWERS.keys())
def test_poll(data: bytes, expected: PollAnswer) -> None:
    uvloop.run(polls.test_poll(data, expected))


@pytest.mark.parametrize(("data", "kind"), polls.CLASSES.values(), ids=polls.CLASSES.keys())
def test_poll_that_says_little(data: bytes, kind: type[PollAnswer]) -> None:
    uvloop.run(polls.test_poll_that_says_little(data, kind))


def test_the_rest_of_polling() -> None:
    for case in (
        polls.test_a_poll_cut_at_any_byte,
        polls.test_a_poll_that_is_never_answered,
        polls.test_polls_keep_their_connection_and_no_cookies,
        polls.test_an_answer_to_a_question_nobody_asked_is_not_taken_for_another_tasks,
        polls.test_a_dead_kept_connection_is_a_failed_poll_and_no_second_get,
        polls.test_cancelling_a_poll_cancels_it,
    ):
        uvloop.run(case())


def test_contract() -> None:
    for method in ("GET", "POST"):
        uvloop.run(contract.test_the_hook_is_awaited_before_the_first_byte(method))
    for error in (ValueError("x"), OSError(28, "x"), asyncio.CancelledError()):
        uvloop.run(contract.test_an_exception_in_the_hook_aborts_with_nothing_on_the_wire(error))
    for case in (
        contract.test_a_hook_runs_for_every_send,
        contract.test_a_post_is_not_sent_again_on_a_dead_connection,
        contract.test_a_get_is_sent_again_unless_told_otherwise,
        contract.test_unsolicited_bytes_are_seen_as_should_close,
    ):
        uvloop.run(case())


@pytest.mark.parametrize(("data", "kind", "code"), downloads.ERRORS.values(), ids=downloads.ERRORS.keys())
def test_download_errors(tmp_path: Path, data: bytes, kind: type[FetchError], code: str) -> None:
    uvloop.run(downloads.test_errors_by_what_the_caller_may_do(tmp_path, data, kind, code))


def test_downloads(tmp_path: Path) -> None:
    for number, case in enumerate(
        (
            downloads.test_a_large_file_in_many_pieces,
            downloads.test_every_cut_is_noticed,
            downloads.test_a_reset,
            downloads.test_a_stall,
            downloads.test_many_at_once,
        )
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        uvloop.run(case(folder))
    for sent in (0, 100, 3_000_000):
        folder = tmp_path / f"cancelled-{sent}"
        folder.mkdir()
        uvloop.run(downloads.test_cancelling_leaves_nothing(folder, sent))
