"""`notify:`: what it says, as sinks."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from .. import catalogue
from ..core.notice import EVERY, PATIENCE, PROBLEMS, Command, Mail, Outcome, Sink, Webhook, address_problem
from .events import read_yaml
from .findings import Report, Stop
from .located import Document, Map, Node, Seq
from .reading import check_text, read_bytes
from .sources import check_head
from .templates import TemplateError, fill


def load_notices(file: str | os.PathLike[str], *, secrets: Sequence[str] = ()) -> tuple[Sink, ...]:
    """Read a file that has `notify:` alone.

    Raises:
        ManifestError: with everything that is wrong, sorted by position.
    """
    report = Report(secrets)
    document = Document(os.fspath(file))
    try:
        check_text(document, data := read_bytes(document, os.fspath(file), report), report)
        read_yaml(document, data, report)
    except Stop:
        report.check()
    if not isinstance(document.root, Map):
        report.error_at(document, 1, 1, "the file must be a mapping with the key notify")
        report.check()
    root = Node(document, document.root)
    check_head(root, catalogue.manifest_schema(), "notifyFile", report, broken=report.errors > 0)
    report.check()
    found = sinks(root, {}, report, trusted=True)
    report.check()
    return found


def sinks(root: Node, values: Mapping[str, Any], report: Report, *, trusted: bool = False) -> tuple[Sink, ...]:
    """The sinks of a mapping's `notify`. What the schema refuses was reported already, and is left out.

    Args:
        root: the mapping.
        values: variables, for the texts.
        report: where problems go.
        trusted: see `Sink`.
    """
    if not isinstance(root.value.get("notify"), Seq):
        return ()
    entries = root.child("notify")
    nodes = [entries.child(i) for i, entry in enumerate(entries.value) if isinstance(entry, Map)]
    return tuple(_sink(node, _Texts(values, report), trusted) for node in nodes)


class _Texts:
    """Fills the variables in, and reports what can't be."""

    def __init__(self, values: Mapping[str, Any], report: Report) -> None:
        self._values = values
        self.report = report

    def of(self, node: Node, key: str | int) -> str:
        try:
            return fill(str(node.value[key]), self._values)
        except TemplateError as error:
            self.report.error(node.at(key), str(error))
            return ""


def _sink(node: Node, texts: _Texts, trusted: bool) -> Sink:
    on = node.value.get("on", "problems")
    outcomes = {"always": EVERY, "problems": PROBLEMS}.get(on) if isinstance(on, str) else frozenset(map(Outcome, on))
    return Sink(_way(node, texts), outcomes or PROBLEMS, float(node.value.get("timeout", PATIENCE)), trusted)


def _way(node: Node, texts: _Texts) -> Webhook | Command | Mail:
    if "webhook" in node.value:
        hook = node.child("webhook")
        url = texts.of(hook, "url") if "url" in hook.value else ""
        problem = address_problem(url) if url else ""
        if problem:
            texts.report.error(hook.at("url"), f"the webhook's url can't be used: {problem}; url_env names a variable")
        return Webhook(url, hook.value.get("url_env", ""), hook.value.get("format") == "slack")
    if "command" in node.value:
        words = node.child("command")
        found = tuple(texts.of(words, i) for i in range(len(words.value)))
        if not words.value[0]:
            texts.report.error(words.at(0), "the command's first word names a program")
        return Command(found, node.value.get("input") == "json")
    letter = node.child("mail")
    to = letter.child("to")
    return Mail(tuple(map(str, to.value)), letter.value.get("from", ""))
