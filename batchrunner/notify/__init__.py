"""Tells people and programs how a run ended. The room's front door.

Nobody waits for long here, and nothing that goes wrong changes how the run ended: it is only said.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from ..core.notice import Command, Mail, Notice, Sink, Webhook, address_problem
from .ways import NotTold, mail, post, run

ALLOW_COMMANDS = "BATCHRUNNER_ALLOW_COMMANDS"
"""The variable that lets a manifest, which may be somebody else's, name a command to run."""


def problems(sinks: Sequence[Sink], environment: Mapping[str, str]) -> list[str]:
    """Why sinks could not be told, as far as that is known before a run."""
    found = []
    for sink in sinks:
        try:
            _check(sink, environment)
        except NotTold as problem:
            found.append(str(problem))
    return found


async def tell(sinks: Sequence[Sink], notice: Notice, environment: Mapping[str, str]) -> list[str]:
    """Tell everybody who wants to know of this outcome, side by side.

    Args:
        sinks: all of them.
        notice: what to say.
        environment: where the webhooks' addresses stand; a command gets it without the API keys.

    Returns:
        What could not be told, and why: a line for each.
    """
    asked = [sink for sink in sinks if notice.outcome in sink.on]
    answers = await asyncio.gather(*(_tell(sink, notice, environment) for sink in asked))
    return [answer for answer in answers if answer]


async def _tell(sink: Sink, notice: Notice, environment: Mapping[str, str]) -> str:
    try:
        _check(sink, environment)
        async with asyncio.timeout(sink.patience):
            match sink.way:
                case Webhook() as hook:
                    await post(hook.url or environment[hook.url_env], notice, slack=hook.slack)
                case Command() as command:
                    await run(command, notice, environment)
                case Mail() as letter:
                    await mail(letter, notice, environment)
    except NotTold as problem:
        return str(problem)
    except TimeoutError:
        return f"{_name(sink)}: not done after {sink.patience:g} s"
    except Exception as error:  # noqa: BLE001  a bug here must not hide how the run ended
        return f"{_name(sink)}: {type(error).__name__}"
    return ""


def _check(sink: Sink, environment: Mapping[str, str]) -> None:
    match sink.way:
        case Webhook(url="", url_env=name):
            url = environment.get(name, "")
            problem = address_problem(url) if url else "it is not set"
            if problem:
                raise NotTold(f"{_name(sink)}: {problem}")
        case Command() if not sink.trusted and environment.get(ALLOW_COMMANDS) != "1":
            raise NotTold(f"{_name(sink)}: a manifest's command is run only with {ALLOW_COMMANDS}=1 in the environment")
        case _:
            pass


def _name(sink: Sink) -> str:
    """What to call a sink; nothing of a URL, which may be secret."""
    match sink.way:
        case Webhook(url_env=name):
            return f"the webhook of {name}" if name else "the webhook"
        case Command(words=words):
            return f"the command {words[0]}"
        case Mail():
            return "the mail"
