"""What the requests do to a run, and what is answered."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, assert_never

from ..core.words import Cancel, Judge, Resolve, Retry, Word
from ..engine.ports import Observer
from ..engine.runner import Runner
from ..engine.words import Done
from ..exits import UsageError
from ..ledger.errors import LedgerError
from ..ledger.naming import Unknown
from .place import Peer
from .protocol import Continue, Limits, Look, Pause, Request, answer, refusal


class Desk:
    """Answers for one run."""

    def __init__(self, runner: Runner, observe: Observer) -> None:
        self._runner = runner
        self._observe = observe

    async def __call__(self, request: Request, peer: Peer) -> bytes:
        """Do what is asked, and say what came of it. A failure is an answer, and never ends the run."""
        try:
            return answer(**await self._do(request, peer.name), progress=self._runner.progress())
        except (Unknown, UsageError, LedgerError) as error:
            return refusal(str(error))
        except Exception as error:  # noqa: BLE001  whoever asks must not be able to end a night
            self._observe("remote_failed", error={"message": f"{type(error).__name__}: {error}"})
            return refusal(f"a bug in batchrunner ({type(error).__name__}); the run goes on")

    async def _do(self, request: Request, who: str) -> dict[str, Any]:
        control = self._runner.control
        match request:
            case Look():
                return {}
            case Pause():
                control.pause(who)
                self._observe("paused", who=who)
                return {}
            case Continue():
                control.go_on()
                self._observe("continued", who=who)
                return {}
            case Limits():
                if request != Limits():
                    polls = request.polls_per_minute
                    self._runner.limit(request.submits_per_minute, request.in_flight, polls_per_minute=polls)
                    self._observe("limits_set", who=who, **_bounds(self._runner.progress()))
                return {}
            case Cancel() | Retry() | Resolve() | Judge():
                return _told(request, await self._runner.speak(request, who))
            case _:
                assert_never(request)


def _bounds(progress: dict[str, Any]) -> dict[str, Any]:
    return {key: progress[key] for key in ("submits_per_minute_bound", "in_flight_bound", "polls_per_minute_bound")}


def _told(word: Word, done: Done) -> dict[str, Any]:
    return {
        word.did: [{"batch": batch, "job": job} for batch, job in done.jobs],
        "skipped": [asdict(one) for one in done.skipped],
        "credits": done.credits,
    }
