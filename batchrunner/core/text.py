"""Text from outside, made harmless for a terminal."""

from __future__ import annotations

import unicodedata

_DANGEROUS = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode categories that can move a cursor, reorder or hide text: controls, formats (bidi, zero width),
surrogates, private use, unassigned, line and paragraph separators."""


def visible(text: str, limit: int = 0, keep: str = "") -> str:
    """`text` with every control, escape, bidi and zero-width character shown as an escape such as `\\x1b`.

    Args:
        text: anything from a manifest or a server.
        limit: longest result in characters, cut with an ellipsis; 0 for no limit.
        keep: characters to leave as they are, such as a newline where that does no harm.
    """
    if limit:
        text = text[: limit + 1]  # what is cut off anyway can be very long
    if not text.isascii() or not text.isprintable():
        text = "".join(_escape(c) if unicodedata.category(c) in _DANGEROUS and c not in keep else c for c in text)
    if limit and len(text) > limit:
        return text[: limit - 1] + "…"
    return text


def _escape(char: str) -> str:
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
