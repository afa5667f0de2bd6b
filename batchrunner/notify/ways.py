"""The ways to tell: a webhook, a command, the system's sendmail."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate, make_msgid
from typing import Any

from .. import programs
from ..core.notice import Command, Mail, Notice

SENDMAIL_FOLDERS = ("/usr/sbin", "/usr/lib")
"""Where sendmail is when it is not on the PATH (Filesystem Hierarchy Standard; older systems)."""

MAX_SUMMARY = 3000
"""Characters of a summary that go to a chat; Slack cuts a message at 40,000."""


class NotTold(Exception):
    """Somebody could not be told; the message says who and why, and has no secret in it."""


def payload(notice: Notice) -> dict[str, Any]:
    """The notice as JSON."""
    return {
        "event": "run_ended",
        "outcome": notice.outcome.value,
        "exit_code": notice.exit_code,
        "title": notice.title,
        "summary": "\n".join(notice.lines),
        **notice.facts,
    }


def slack_payload(notice: Notice) -> dict[str, Any]:
    """The shape that Slack takes, and Mattermost, Rocket.Chat and Discord (`/slack`) take too. `&`, `<` and `>` are
    escaped as Slack asks (docs.slack.dev, Formatting message text), so that no text mentions a channel."""
    summary = "\n".join(notice.lines)
    if len(summary) > MAX_SUMMARY:
        summary = summary[: MAX_SUMMARY - 1] + "…"
    text = notice.title
    if summary:
        text += "\n```\n" + summary.replace("`", "'") + "\n```"
    return {"text": text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")}


async def post(url: str, notice: Notice, *, slack: bool) -> None:
    """POST the notice. A redirect is not followed, and of the answer nothing but its status is read.

    Raises:
        NotTold: nobody answered, or not with 2xx.
    """
    import aiohttp
    from yarl import URL

    address = URL(url)
    data = json.dumps(slack_payload(notice) if slack else payload(notice)).encode()
    headers = {"Content-Type": "application/json", "User-Agent": "batchrunner"}
    try:
        async with (
            aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False) as session,
            session.post(address, data=data, headers=headers, allow_redirects=False) as answer,
        ):
            status = answer.status
    except aiohttp.ClientConnectorError as error:
        reason = error.os_error.strerror or type(error.os_error).__name__
        raise NotTold(f"the webhook at {address.host}: no connection ({reason})") from None
    except (aiohttp.ClientError, OSError) as error:
        raise NotTold(f"the webhook at {address.host}: {type(error).__name__}") from None
    if not 200 <= status < 300:
        raise NotTold(f"the webhook at {address.host} answered {status}")


async def run(command: Command, notice: Notice, environment: Mapping[str, str]) -> None:
    """Run a command with the notice on its standard input; what it prints goes to standard error.

    Raises:
        NotTold: it could not be started, or ended with another code than 0.
    """
    told = json.dumps(payload(notice)) if command.json else _text(notice)
    more = {"BATCHRUNNER_OUTCOME": notice.outcome.value, "BATCHRUNNER_EXIT_CODE": str(notice.exit_code)}
    await _run(command.words, told.encode("utf-8", "backslashreplace"), {**environment, **more}, command.words[0])


async def mail(letter: Mail, notice: Notice, environment: Mapping[str, str]) -> None:
    """Hand a mail to sendmail, addressees as arguments: no header of it decides where it goes.

    Raises:
        NotTold: there is no sendmail, or it refused.
    """
    path = os.pathsep.join([environment.get("PATH", os.defpath), *SENDMAIL_FOLDERS])
    sendmail = shutil.which("sendmail", path=path)
    if sendmail is None:
        raise NotTold(f"the mail to {letter.to[0]}: there is no sendmail on this machine")
    message = EmailMessage(policy=SMTP.clone(linesep="\n"))
    message["To"] = ", ".join(letter.to)
    if letter.sender:
        message["From"] = letter.sender
    message["Subject"] = notice.title
    message["Date"] = formatdate(localtime=True)
    message["Message-ID"] = make_msgid(domain="batchrunner.invalid")
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(_text(notice))
    await _run([sendmail, "-i", "--", *letter.to], message.as_bytes(), environment, "sendmail")


def _text(notice: Notice) -> str:
    return "\n".join([notice.title, "", *notice.lines]).rstrip() + "\n"


async def _run(words: Sequence[str], told: bytes, environment: Mapping[str, str], name: str) -> None:
    try:
        await programs.run(words, told, environment)
    except programs.CantRun as error:
        said = str(error)
        raise NotTold(f"the command {name}{' ' if said.startswith('ended') else ': '}{said}") from None
