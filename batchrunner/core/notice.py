"""Who is told how a run ended: what a manifest's `notify:` means, and what there is to say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

from .hosts import is_loopback_host

PATIENCE = 10.0
"""Seconds that a sink has, where the manifest does not say."""


class Outcome(StrEnum):
    """How a run ended, as `on:` names it; one for each kind of exit code."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    UNCONFIRMED = "unconfirmed"
    STOPPED = "stopped"
    REFUSED = "refused"
    INTERRUPTED = "interrupted"
    BUSY = "busy"
    ERROR = "error"


EVERY = frozenset(Outcome)
PROBLEMS = EVERY - {Outcome.SUCCEEDED, Outcome.INTERRUPTED}
"""What is told where `on:` is not given: all but a good end, and one that somebody has asked for."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """An address to POST to: given, or in the environment under a name. `slack`: in the shape that Slack takes."""

    url: str = field(default="", repr=False)
    url_env: str = ""
    slack: bool = False


@dataclass(frozen=True, slots=True)
class Command:
    """A program and its arguments; it reads the notice on its standard input. `json`: all of it, for programs."""

    words: tuple[str, ...]
    json: bool = False


@dataclass(frozen=True, slots=True)
class Mail:
    """Mail by the system's sendmail."""

    to: tuple[str, ...]
    sender: str = ""


@dataclass(frozen=True, slots=True)
class Sink:
    """Somebody to tell.

    Attributes:
        way: how.
        on: at which outcomes.
        patience: seconds until it is given up.
        trusted: named by whoever runs this, not by a manifest, which may be somebody else's.
    """

    way: Webhook | Command | Mail
    on: frozenset[Outcome] = PROBLEMS
    patience: float = PATIENCE
    trusted: bool = False


@dataclass(frozen=True, slots=True)
class Notice:
    """What there is to say.

    Attributes:
        outcome, exit_code: how the run ended.
        title: in one line. No text here has control characters in it.
        lines: the summary for people.
        facts: the summary for programs, JSON.
    """

    outcome: Outcome
    exit_code: int
    title: str
    lines: Sequence[str] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


def address_problem(url: str) -> str:
    """Why a webhook's URL can't be used, without a part of it that may be secret; empty where it can."""
    if not url.isascii() or not url.isprintable() or " " in url:
        return "it must be plain ASCII without spaces"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "it is no URL"
    if parts.scheme not in ("http", "https") or not host:
        return "it must begin with https:// and a host"
    if parts.username is not None or parts.password is not None:
        return "it must not have a name or password before its host"
    if parts.scheme == "http" and not is_loopback_host(host):
        return "it must begin with https://, except on this machine"
    return ""
