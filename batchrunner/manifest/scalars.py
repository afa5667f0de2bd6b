"""Scalars by the YAML 1.2 core schema, and what text may contain.

`16:9`, `no` and `on` are strings, `010` is ten: YAML 1.1's base-60 numbers, octals and extra booleans turn
requests into others without a word.
"""

from __future__ import annotations

import re
from typing import Any

MAX_INT = 2**63 - 1
"""Integers beyond 64 bits are refused: no request field means one, and JSON readers disagree on them."""

_CONSTANTS: dict[str, Any] = {
    "": None,
    "~": None,
    "null": None,
    "Null": None,
    "NULL": None,
    "true": True,
    "True": True,
    "TRUE": True,
    "false": False,
    "False": False,
    "FALSE": False,
}
_INT = re.compile(r"[-+]?[0-9]+")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_NUMBER_STARTS = frozenset("0123456789+-.")

_FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
"""Not allowed in any text: controls other than tab and line feed, lone surrogates, non-characters."""


class BadScalar(ValueError):
    """A scalar that is refused; the message says why."""


def resolve(text: str) -> Any:
    """The value of a plain scalar: None, a bool, an int, a finite float, or `text` itself.

    Raises:
        BadScalar: NaN, an infinity, or an integer beyond 64 bits.
    """
    if text[:1] not in _NUMBER_STARTS and text not in _CONSTANTS:
        return text
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INT.fullmatch(text) or _BASED.fullmatch(text):
        return _integer(text)
    if _FLOAT.fullmatch(text):
        return finite(text)
    if _NOT_FINITE.fullmatch(text):
        raise BadScalar(f"{text} is not a finite number; put it in quotes if text is meant")
    return text


def _integer(text: str) -> int:
    if len(text) > 66:
        raise BadScalar(f"an integer of {len(text)} digits is too large; put it in quotes if text is meant")
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    value = int(text[2:], base) if base != 10 else int(text)
    if abs(value) > MAX_INT:
        raise BadScalar("an integer must fit in 64 bits; put it in quotes if text is meant")
    return value


def finite(text: str) -> float:
    """A float from its digits; the largest ones overflow and are refused.

    Raises:
        BadScalar: the number overflows.
    """
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise BadScalar(f"{text[:40]} is too large for a number; put it in quotes if text is meant")
    return value


def text_problem(text: str) -> str | None:
    """What is wrong with `text` (a control character, a lone surrogate), or None."""
    if text.isprintable():
        return None
    found = _FORBIDDEN.search(text)
    if found is None:
        return None
    code = ord(found.group())
    if 0xD800 <= code <= 0xDFFF:
        return f"a lone surrogate (U+{code:04X}) is not a character"
    return f"the control character U+{code:04X} is not allowed"


def to_text(value: Any) -> str:
    """A scalar as it stands in text: `true`, `5`, `0.5`, or the string itself."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    return value if isinstance(value, str) else str(value)


def typed(value: Any) -> tuple[type, Any]:
    """A value that equals another only if both have the same type: `1`, `1.0` and `True` differ.

    Collections become tuples, so that every JSON value can be a key.
    """
    if isinstance(value, dict):
        return dict, frozenset((k, typed(v)) for k, v in value.items())
    if isinstance(value, list):
        return list, tuple(typed(v) for v in value)
    return type(value), value
