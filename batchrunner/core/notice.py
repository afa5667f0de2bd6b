"""Who is told how a run ended: what a manifest's `notify:` means, and what there is to say."""

from __future__ import annotations

import json
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


def kept(sinks: Sequence[Sink]) -> str:
    """What the ledger keeps of a manifest's sinks, for `restored`: JSON. A webhook whose address stands in the manifest
    is left out, as an address may be a secret; the name of a variable is none."""
    found: list[dict[str, Any]] = []
    for sink in filter(is_kept, sinks):
        match sink.way:
            case Webhook(url_env=name, slack=slack):
                way: dict[str, Any] = {"webhook": {"url_env": name, "slack": slack}}
            case Command(words=words, json=as_json):
                way = {"command": {"words": list(words), "json": as_json}}
            case Mail(to=to, sender=sender):
                way = {"mail": {"to": list(to), "sender": sender}}
        found.append({**way, "on": sorted(sink.on), "patience": sink.patience})
    return json.dumps(found)


def is_kept(sink: Sink) -> bool:
    """Whether `kept` keeps it."""
    return not (isinstance(sink.way, Webhook) and sink.way.url)


def restored(text: str) -> tuple[Sink, ...]:
    """The sinks that `kept` was given, as far as it kept them; nothing of what it did not write."""
    try:
        return tuple(_restored(one) for one in json.loads(text))
    except (ValueError, TypeError, KeyError, RecursionError):
        return ()


def _restored(one: dict[str, Any]) -> Sink:
    way: Webhook | Command | Mail
    if "webhook" in one:
        way = Webhook(url_env=str(one["webhook"]["url_env"]), slack=bool(one["webhook"]["slack"]))
    elif "command" in one:
        way = Command(tuple(map(str, one["command"]["words"])), bool(one["command"]["json"]))
    else:
        way = Mail(tuple(map(str, one["mail"]["to"])), str(one["mail"]["sender"]))
    return Sink(way, frozenset(map(Outcome, one["on"])), float(one["patience"]))


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
