"""YAML text to a located tree, in one pass over libyaml's events.

Why events and not `yaml.load`: the composer recurses in C (100,000 `[` crash it), expands aliases and merges
without a bound, keeps no positions in what it constructs, and takes ten times the memory (PERFORMANCE.md).
Here depth is checked before it is descended into, and aliases are counted before they are followed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import yaml
from yaml.events import (
    AliasEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
)

from .findings import Report, Stop, quoted
from .located import LINE_SHIFT, MAX_DEPTH, MAX_KEYS, TOO_DEEP, Document, Map, Seq
from .reading import position_of
from .scalars import BadScalar, resolve, text_problem

MAX_ALIASED = 10_000
"""Nodes that aliases may add to what is written, each counted as often as it is repeated; long texts count more."""
MAX_STRUCTURAL = 100
"""Errors of the text itself after which reading stops."""
_MEMO = 1 << 14
_UNKNOWN = object()


if yaml.__with_libyaml__:
    from yaml._yaml import CParser


class _PureParser(yaml.reader.Reader, yaml.scanner.Scanner, yaml.parser.Parser):
    def __init__(self, data: bytes) -> None:
        yaml.reader.Reader.__init__(self, data)
        yaml.scanner.Scanner.__init__(self)
        yaml.parser.Parser.__init__(self)


# A PyYAML built without libyaml is slower and gives the same events.
_Parser: Callable[[bytes], Any] = CParser if yaml.__with_libyaml__ else _PureParser


def read_yaml(document: Document, data: bytes, report: Report) -> None:
    """Fill `document.root` and `document.marks` from YAML text that passed `reading.check_text`.

    Duplicate keys, keys that are not strings, tags and the like are reported, their entries left out.

    Raises:
        Stop: the text is no YAML, too deep, or more than one document; reported.
    """
    _TreeReader(document, data, report).read()


class _TreeReader:
    def __init__(self, document: Document, data: bytes, report: Report) -> None:
        self.document = document
        self.marks = document.marks
        self.report = report
        self.data = data
        self.next: Callable[[], Any] = lambda: None
        self.anchors: dict[str, tuple[Any, int, int, int]] = {}  # name -> value, nodes, depth below it, its mark
        self.aliased = 0
        self.trouble = 0
        self.plain: dict[str, Any] = {}
        self.names: dict[str, str] = {}
        self.plain_keys: dict[str, str] = {}  # of `names`, what stood somewhere without quotes

    def read(self) -> None:
        self._refuse_directives()
        try:
            self.next = _Parser(self.data).get_event
            self.next()  # stream start
            event = self.next()
            if isinstance(event, yaml.StreamEndEvent):
                return
            self.document.root = self.node(self.next(), 1)
            self.next()  # document end
            event = self.next()
            if not isinstance(event, yaml.StreamEndEvent):
                self.fail(event, "a second document starts here; a manifest is one document")
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            where = (mark.line + 1, mark.column + 1) if mark else (1, 1)
            # libyaml ends a text without a final line feed on a line that is not there.
            line, column = min(where, position_of(self.data, len(self.data)))
            self.report.error_at(self.document, line, column, _syntax_message(error))
            raise Stop from None
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            self.report.error_at(self.document, 1, 1, f"not valid YAML: {error}")
            raise Stop from None

    def _refuse_directives(self) -> None:
        """`%TAG` serves only tags, which are refused, and many of them make libyaml quadratic."""
        for number, line in enumerate(self.data[:65536].removeprefix(b"\xef\xbb\xbf").splitlines()):
            if line.startswith(b"%"):
                self.report.error_at(
                    self.document, number + 1, 1, "directives (a line starting with %) are not allowed"
                )
                raise Stop
            if line.strip() and not line.lstrip().startswith(b"#"):
                return

    # --- nodes -------------------------------------------------------------------------------------------

    def node(self, event: Any, depth: int) -> Any:
        kind = type(event)
        if kind is ScalarEvent:
            return self.scalar(event)
        mark = event.start_mark
        if kind is AliasEvent:
            return self.alias(event, depth)
        if depth > MAX_DEPTH:
            self.fail(event, TOO_DEEP)
        problem = self.document.admit()
        if problem:
            self.fail(event, problem)
        if event.tag is not None:
            self.error(event, f"tags ({_tag(event.tag)}) are not allowed; plain YAML values are")
        at = len(self.marks)
        self.marks.append(mark.line << LINE_SHIFT | mark.column)
        value = self.mapping(at, depth) if kind is MappingStartEvent else self.sequence(at, depth)
        if event.anchor is not None:
            self.anchors[event.anchor] = (value, _count(value), _height(value), at)
        return value

    def scalar(self, event: Any) -> Any:
        mark = event.start_mark
        self.marks.append(mark.line << LINE_SHIFT | mark.column)
        text = event.value
        if event.tag is not None:
            self.error(event, f"tags ({_tag(event.tag)}) are not allowed; plain YAML values are")
        if event.implicit[0]:
            value = self.plain.get(text, _UNKNOWN)
            if value is _UNKNOWN:
                value = self._resolve(event, text)
        else:
            value = text
            # Without quotes there are no escapes, so that `reading.check_text` has seen every character.
            if not text.isprintable():
                problem = text_problem(text)
                if problem:
                    self.error(event, problem)
        if event.anchor is not None:
            self.anchors[event.anchor] = (value, _count(value), 0, len(self.marks) - 1)
        return value

    def _resolve(self, event: Any, text: str) -> Any:
        try:
            value = resolve(text)
        except BadScalar as error:
            self.error(event, str(error))
            return 0
        if len(text) <= 32 and len(self.plain) < _MEMO:
            self.plain[text] = value
        return value

    def mapping(self, at: int, depth: int) -> Map:
        result = Map()
        result.at = at
        marks = self.marks
        following = self.next
        known = self.plain_keys.get
        while True:
            event = following()
            kind = type(event)
            if kind is MappingEndEvent:
                break
            start = len(marks)
            # Most keys were met before: what `key` would find of them is known.
            key = known(event.value) if kind is ScalarEvent and event.anchor is None and event.tag is None else None
            if key is None or key in result:
                key = self.key(event, result, depth)
            else:
                mark = event.start_mark
                marks.append(mark.line << LINE_SHIFT | mark.column)
            event = following()
            value = self.scalar(event) if type(event) is ScalarEvent else self.node(event, depth + 1)
            if key is None:
                self._forget(start)
            else:
                result[key] = value
                if len(result) > MAX_KEYS:
                    self.fail(event, f"too many keys: at most {MAX_KEYS} are allowed in one mapping")
        result.end = len(marks)
        return result

    def sequence(self, at: int, depth: int) -> Seq:
        result = Seq()
        result.at = at
        following = self.next
        while True:
            event = following()
            kind = type(event)
            if kind is SequenceEndEvent:
                break
            result.append(self.scalar(event) if kind is ScalarEvent else self.node(event, depth + 1))
        result.end = len(self.marks)
        return result

    def key(self, event: Any, into: Map, depth: int) -> str | None:
        """A key of `into`, or None where it was reported and its entry is to be left out."""
        if type(event) is not ScalarEvent:
            if type(event) is not AliasEvent:
                self.node(event, depth + 1)
            self.error(event, "a key must be a plain string, not a list, a mapping or an alias")
            return None
        before = self.trouble
        key = self.scalar(event)
        if self.trouble != before:
            return None
        if type(key) is not str:
            self.error(event, f"a key must be a string; put {quoted(event.value)} in quotes")
            return None
        if key == "<<" and event.implicit[0]:
            self.error(event, "merge keys (<<) are not supported; put what shots share in defaults or in a profile")
            return None
        if key in into:
            line, column = self.document.position(self.document.mark_of_key(into, key))
            self.error(event, f"duplicate key {quoted(key)}; it stands at {line}:{column} already")
            return None
        if len(self.names) >= _MEMO:
            return key
        name = self.names.setdefault(key, key)
        if event.implicit[0]:
            self.plain_keys[name] = name
        return name

    def alias(self, event: Any, depth: int) -> Any:
        self.marks.append(event.start_mark.line << LINE_SHIFT | event.start_mark.column)
        found = self.anchors.get(event.anchor)
        if found is None:
            name = event.anchor[:60]
            self.error(event, f"the alias *{name} has no anchor &{name} before it")
            return None
        value, nodes, height, _ = found
        self.aliased += nodes
        if self.aliased > MAX_ALIASED:
            self.fail(event, f"aliases repeat too much: at most {MAX_ALIASED} values may come from aliases")
        if depth + height - 1 > MAX_DEPTH:
            self.fail(event, TOO_DEEP)
        return value

    # --- helpers -----------------------------------------------------------------------------------------

    def _forget(self, start: int) -> None:
        """Drop the marks of an entry that is left out: the others are found by counting."""
        del self.marks[start:]
        self.anchors = {name: found for name, found in self.anchors.items() if found[3] < start}

    def error(self, event: Any, message: str) -> None:
        mark = event.start_mark
        self.report.error_of_text(self.document, mark.line + 1, mark.column + 1, message)
        self.trouble += 1
        if self.trouble >= MAX_STRUCTURAL:
            raise Stop

    def fail(self, event: Any, message: str) -> None:
        self.error(event, message)
        raise Stop


def _count(value: Any) -> int:
    """Nodes of an anchored value, aliases in it expanded (each was bounded when it was met), and one more for every
    thousand characters: an error's text would repeat them all."""
    if isinstance(value, Map):
        return 1 + sum(_count(k) + _count(v) for k, v in value.items())
    if isinstance(value, Seq):
        return 1 + sum(map(_count, value))
    return 1 + len(value) // 1000 if isinstance(value, str) else 1


def _height(value: Any) -> int:
    """Levels of collections in `value`, itself included."""
    if isinstance(value, Map):
        return 1 + max(map(_height, value.values()), default=0)
    if isinstance(value, Seq):
        return 1 + max(map(_height, value), default=0)
    return 0


def _tag(tag: str) -> str:
    return quoted(tag.replace("tag:yaml.org,2002:", "!!"), 40)


def _syntax_message(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or "it can't be parsed"
    if "maximum nesting depth" in problem:  # a bound of newer libyaml, which reads ahead of our own
        return TOO_DEEP
    if "cannot start any token" in problem:
        problem += " (tabs can't indent, and text with special characters needs quotes)"
    elif "mapping values are not allowed" in problem:
        problem += " (text that contains ': ' needs quotes)"
    context = f", {error.context}" if error.context else ""
    return f"not valid YAML: {problem}{context}"
