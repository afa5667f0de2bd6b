"""`${name}` in strings: what may stand there, and what it becomes.

Available in a shot's fields and tags: the manifest's variables, the shot's matrix variables, `batch`, `shot`,
`take` and `model`. In `output.name` also every request field, and `job`, the job's key. In `output.dir`,
`include` and `shots_from`: variables and `batch`. `$${` is a literal `${`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .findings import did_you_mean, listed, quoted
from .scalars import BadScalar, resolve, text_problem, to_text

OPEN = "${"
_PART = re.compile(r"\$\$\{|\$\{([^${}]*)\}|\$\{")
_ALONE = re.compile(r"\$\{([^${}]*)\}")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
RESERVED = ("batch", "shot", "take", "model")
"""Names that every job sets itself."""
SHOTS = "shots."
"""What a name begins with that means another shot's output; see `chains`. No variable has a dot in its name."""
MAX_PLACEHOLDERS = 1000
MAX_VARIABLE = 65536
"""Longest variable, in characters, other variables in it replaced; and most that variables may bring into one text."""


class TemplateError(ValueError):
    """A string that can't be filled in; the message says why."""


class NoValue(TemplateError):
    """`name` means nothing here."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__(unknown(name, known))
        self.name = name


class Override(str):
    """A variable from the command line: text, until it fills a field that is not text."""

    __slots__ = ()


def fill(text: str, values: Mapping[str, Any], used: set[str] | None = None) -> str:
    """`text` with every `${name}` replaced.

    Args:
        text: a string of the manifest.
        values: name to scalar.
        used: receives the names that occur, known or not.

    Raises:
        TemplateError: an unknown name or a `${` without an end.
    """
    if text.count(OPEN) > MAX_PLACEHOLDERS:
        raise TemplateError(f"too many variables in one text: at most {MAX_PLACEHOLDERS} are allowed")

    room = MAX_VARIABLE

    def replacement(found: re.Match[str]) -> str:
        nonlocal room
        if found.group() == "$${":
            return OPEN
        name = found[1]
        if name is None:
            raise TemplateError("'${' without its '}'; write '$${' for a literal '${'")
        if used is not None:
            used.add(name)
        if name not in values:
            raise NoValue(name, values)
        value = to_text(values[name])
        room -= len(value)
        if room < 0:
            raise TemplateError(f"too long: variables may bring at most {MAX_VARIABLE} characters into one text")
        return value

    return _PART.sub(replacement, text)


def fill_typed(text: str, values: Mapping[str, Any], used: set[str] | None = None) -> Any:
    """Like `fill`, but a text that is nothing but one `${name}` becomes that variable's value with its type.

    Raises:
        TemplateError: as `fill`, or a number on the command line that is none.
    """
    alone = _ALONE.fullmatch(text)
    if alone is None or alone[1] not in values:
        return fill(text, values, used)
    if used is not None:
        used.add(alone[1])
    value = values[alone[1]]
    if not isinstance(value, Override):
        return value
    try:
        return resolve(str(value))
    except BadScalar as error:
        raise TemplateError(f"variable {alone[1]}: {error}") from None


def names_in(text: str) -> set[str]:
    """The names that occur in `text`."""
    return {m[1] for m in _PART.finditer(text) if m[1] is not None} if OPEN in text else set()


def unknown(name: str, known: Iterable[str]) -> str:
    """What to say of a name that means nothing."""
    names = sorted(known)
    if not name.strip():
        return "'${}' names no variable; write '$${' for a literal '${'"
    if name.startswith(SHOTS):
        said = quoted("${" + name + "}")
        return f"{said} is another shot's output, and can only be the whole value of a request field of a shot"
    if name != name.strip() and name.strip() in names:
        return f"no spaces are allowed inside ${{}}: write ${{{name.strip()}}}"
    hint = did_you_mean(name, names)
    return f"unknown variable {quoted('${' + name + '}')}{hint}; known here: {listed(names)}"


def split(text: str) -> Sequence[str | tuple[str]]:
    """A template as its parts: literal text, and names as 1-tuples.

    Raises:
        TemplateError: a `${` without its end.
    """
    parts: list[str | tuple[str]] = []
    end = 0
    for found in _PART.finditer(text):
        if found[1] is None and found.group() != "$${":
            raise TemplateError("'${' without its '}'; write '$${' for a literal '${'")
        parts.append(text[end : found.start()])
        parts.append(OPEN if found[1] is None else (found[1],))
        end = found.end()
    parts.append(text[end:])
    return [p for p in parts if p != ""]


def resolve_variables(
    declared: Mapping[str, Any], overrides: Mapping[str, str], batch: str
) -> tuple[dict[str, Any], dict[str, str]]:
    """The variables, each with the variables in it replaced.

    Args:
        declared: the manifest's `vars`.
        overrides: `--var`; they win.
        batch: the batch's name, `${batch}`.

    Returns:
        name to scalar (`batch` included), and name to what is wrong with it.
    """
    problems = {name: problem for name, text in overrides.items() if (problem := _override_problem(name, text))}
    given = {
        name: Override("\N{REPLACEMENT CHARACTER}" if name in problems else text) for name, text in overrides.items()
    }
    raw: dict[str, Any] = {**declared, **given, "batch": batch}
    done: dict[str, Any] = {}

    def value_of(name: str, path: tuple[str, ...]) -> Any:
        if name in done:
            return done[name]
        value = raw[name]
        if isinstance(value, str) and OPEN in value:
            if len(path) > 32 or name in path:
                raise TemplateError("variables refer to each other in a circle: " + listed([*path, name]))
            inner = {n: value_of(n, (*path, name)) for n in sorted(names_in(value)) if n in raw}
            filled = fill(value, {n: inner.get(n, "") for n in raw if n != name})
            if len(filled) > MAX_VARIABLE:
                raise TemplateError(f"the variable is too long: at most {MAX_VARIABLE} characters are allowed")
            value = Override(filled) if isinstance(value, Override) else filled
        done[name] = value
        return value

    for name in raw:
        try:
            value_of(name, ())
        except TemplateError as error:
            problems[name] = str(error)
            done[name] = ""
    return done, problems


def _override_problem(name: str, text: str) -> str | None:
    if not NAME.fullmatch(name):
        return "a variable is named by letters, digits, '_' or '-', starting with a letter or '_'"
    if name in RESERVED:
        return f"${{{name}}} is set for every job and can't be overridden"
    return text_problem(text)
