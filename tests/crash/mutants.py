"""Programs that break the promise on purpose: the enumeration must catch every one, or it proves nothing.

Each changes one thing in the process that the runs are forked from, and names the scenario that brings it to light.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp

from batchrunner.core import events as e
from batchrunner.core import lifecycle
from batchrunner.core.job import Problem
from batchrunner.engine import recover
from batchrunner.ledger import transitions
from batchrunner.providers import answers, fal, http, media, reapi, replicate, replies
from batchrunner.providers.base import BeforeSend
from batchrunner.providers.wire import Key


def _resend() -> None:
    """What was on the wire when the runner died counts as not sent."""

    class Hopeful:
        """The events, as that room sees them."""

        Accepted, Identified = e.Accepted, e.Identified

        @staticmethod
        def Interrupted() -> e.Event:  # noqa: N802
            return e.NotSent(Problem("probably not"))

    setattr(recover, "e", Hopeful)  # noqa: B010


def _late_intent() -> None:
    """The intent is recorded when the answer is there."""
    submit = reapi.ReApi.submit

    async def late(
        self: reapi.ReApi, model: str, request: Mapping[str, Any], before_send: BeforeSend, *, label: str = ""
    ) -> e.SubmitAnswer:
        async def nothing() -> None: ...

        answer = await submit(self, model, request, nothing, label=label)
        await before_send()
        return answer

    reapi.ReApi.submit = late  # type: ignore[assignment,method-assign]


def _retry_post() -> None:
    """A doubtful answer counts as none."""
    decide = answers.submit_answer

    def sure(reply: replies.Reply, key: Key, now: float | None = None) -> e.SubmitAnswer:
        answer = decide(reply, key, now)
        return e.NotSent(answer.problem) if isinstance(answer, e.Ambiguous) else answer

    answers.submit_answer = sure


def _redirects() -> None:
    """A POST is sent on to where the server points, and nobody minds that it is sent twice."""
    request, hook = aiohttp.ClientSession._request, http._hook

    async def follow(self: aiohttp.ClientSession, *arguments: Any, **more: Any) -> aiohttp.ClientResponse:
        return await request(self, *arguments, **(more | {"allow_redirects": True}))

    async def careless(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: object) -> None:
        if not context.trace_request_ctx.open:
            await hook(_session, context, _params)

    aiohttp.ClientSession._request = follow  # type: ignore[method-assign]
    http._hook = careless


def _no_media_check() -> None:
    """What came is taken for the film."""

    def check(path: Path, kind: str, *, whole: bool = True) -> media.Media:
        return media.Media(kind, "MP4", ".mp4")

    setattr(media, "check", check)  # noqa: B010


def _free_doubts() -> None:
    """A doubtful submission counts as free."""

    def free(event: e.Event, before: Any = None) -> lifecycle.Money | None:
        return (
            lifecycle.Money.NONE
            if isinstance(event, e.Ambiguous | e.Interrupted)
            else lifecycle.money_after(event, before)
        )

    transitions.money_after = free  # type: ignore[attr-defined]


def _no_echo() -> None:
    """A poll's answer may be about any task."""
    decide = answers._task

    def blind(reply: replies.Reply, task_id: str, key: Any, now: float | None = None) -> e.PollAnswer:
        obj = replies.json_object(reply)
        return decide(reply, obj, key) if obj is not None else e.PollFailed(Problem("?"))

    answers.poll_answer = blind


def _free_failures() -> None:
    """No service charges for what fails."""

    def free(problem: Problem, *, moderated: bool = False, charged: bool = False) -> e.TaskFailed:
        del charged
        return e.TaskFailed(problem, moderated=moderated)

    setattr(fal, "TaskFailed", free)  # noqa: B010
    setattr(replicate, "TaskFailed", free)  # noqa: B010


@dataclass(frozen=True, slots=True)
class Mutant:
    """Attributes:
    breaks: makes the change.
    scenario: where it shows.
    """

    breaks: Callable[[], None]
    scenario: str


MUTANTS: dict[str, Mutant] = {
    "resend": Mutant(_resend, "none/run:submit.answered.1/run:poll.sent.1/run"),
    "late_intent": Mutant(_late_intent, "none/run:submit.before_intent.1/run:poll.sent.1/run"),
    "retry_post": Mutant(_retry_post, "error500_after/run"),
    "redirects": Mutant(_redirects, "redirect/run"),
    "no_media_check": Mutant(_no_media_check, "cut/run"),
    "free_doubts": Mutant(_free_doubts, "reset_after/run"),
    "no_echo": Mutant(_no_echo, "poll_wrong_id/run"),
    "free_failures": Mutant(_free_failures, "replicate.moderate/run"),
}
